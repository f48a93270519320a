"""--hil-list and the header: what is known without making anything."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_hil.config import host_arch


def test_the_list(plain: pytest.Pytester) -> None:
    plain.makefile(
        ".toml",
        boards="""
        [target.lamp]
        backend = "qemu"
        arch = "arm"
        machine = "mps2-an385"
        kernel = "lamp.elf"
        agent = false
        features = ["blue"]
        [target.gone]
        backend = "qemu"
        disk = "nowhere.qcow2"
        """,
    )
    plain.makefile(".elf", lamp="")
    done = plain.runpytest_inprocess("--hil-list", "--hil-target=lamp")
    assert done.ret == 0
    done.stdout.fnmatch_lines(
        [
            "targets (*/boards.toml):",
            "  qemu",
            f"*QEMU, {host_arch()}, 256 MB, 1 CPU, image debian",
            "*features: console, files, network, power, shell, snapshot, usb, *",
            "  lamp (chosen)",
            "*QEMU mps2-an385, arm, 256 MB, 1 CPU, *lamp.elf",
            "*features: arm, blue, console, power",
            "  gone",
            "*features: not usable: *nowhere.qcow2: there is no such file",
        ]
    )
    done.stdout.no_fnmatch_line("*test session starts*")


def test_the_list_without_a_choice(plain: pytest.Pytester) -> None:
    done = plain.runpytest_inprocess("--hil-list")
    done.stdout.fnmatch_lines(["targets (no boards.toml):", "none is chosen: --hil-target=NAME*"])


def test_the_list_of_a_wrong_file(plain: pytest.Pytester) -> None:
    plain.makefile(".toml", boards="[target.one]\n")
    done = plain.runpytest_inprocess("--hil-list")
    assert done.ret == pytest.ExitCode.USAGE_ERROR
    done.stderr.fnmatch_lines(["ERROR: *boards.toml: *backend*"])


def test_the_header_says_what_will_be_made_and_makes_nothing(
    plain: pytest.Pytester, cache_without_images: Path
) -> None:
    plain.makepyfile("def test_plain(): pass")
    done = plain.runpytest_inprocess("--hil-target=qemu", "--hil-accel=tcg")
    done.stdout.fnmatch_lines(
        [
            f"hil: qemu ({host_arch()}, 256 MB), TCG, image debian to be made, template to be made",
        ]
    )
    assert not (cache_without_images / "image").exists()
    assert not (plain.path / ".hil").exists()


def test_no_header_without_a_target(plain: pytest.Pytester) -> None:
    plain.makepyfile("def test_plain(): pass")
    plain.runpytest_inprocess().stdout.no_fnmatch_line("hil:*")
