"""The conformance suite at the Linux kernel's exporters, and at what the documents say of them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pytest_hil.bench import Bench
from pytest_hil.usbip.conformance import CHECKS, Result, Runner
from tests.integration import linux_exporter
from tests.integration.linux_exporter import LinuxExporter

pytestmark = pytest.mark.machine

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "reference" / "usbip-conformance.md").read_text()

# These leave the server as it was. The hostile ones want a machine each, usbipd takes its time with
# a flood, and what usbip-host does about unlinks differs from run to run.
HARMLESS = [
    check for check in CHECKS if check.id.startswith(("op-", "urb-")) and check.id != "op-flood"
]


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    with linux_exporter.bench_for(tmp_path_factory.mktemp("linux")) as made:
        yield made


@pytest.mark.parametrize("server", [linux_exporter.gadget, linux_exporter.host])
def test_what_linux_fails_is_written_down(
    bench: Bench,
    server: Callable[[Bench], contextlib.AbstractContextManager[LinuxExporter]],
) -> None:
    with server(bench) as linux:
        outcomes = list(Runner(linux.address, linux.busid).run_all(HARMLESS))
    failed = [one.check.id for one in outcomes if one.result is Result.FAIL]
    passed = [one.check.id for one in outcomes if one.result is Result.PASS]
    section = PAGE.partition("### The package")[0]
    assert [name for name in failed if f"`{name}`" not in section] == []
    assert len(passed) > 30


def test_the_number_of_checks_is_written_down() -> None:
    assert f"to {len(CHECKS)} checks" in PAGE
    assert len(CHECKS) >= 40
