"""An image with packages, modules, files and startup lines of its own."""

from __future__ import annotations

import json

import pytest

from pytest_hil import Target

pytestmark = pytest.mark.hil(target="networking")


def test_a_package_is_there(hil: Target) -> None:
    links = json.loads(hil.run("ip -json link show test0").stdout)
    assert links[0]["ifname"] == "test0"


def test_the_startup_lines_have_run(hil: Target) -> None:
    assert "192.0.2.1/24" in hil.run("ip addr show dev test0").stdout


def test_a_file_is_there(hil: Target) -> None:
    assert hil.run("greet").stdout.startswith("hello from ")
