"""The session's bench: made when the first machine is wanted, closed on every way out."""

from __future__ import annotations

import argparse
import atexit
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

import pytest

from pytest_hil.errors import InfrastructureError
from pytest_hil.plugin import options, status

if TYPE_CHECKING:
    from pytest_hil.bench import Bench

_BENCH = pytest.StashKey["Bench"]()
_AT_EXIT = pytest.StashKey[Callable[[], None]]()

MEMORY_BUDGET = "PYTEST_HIL_MEMORY_BUDGET"
BOOT_TIMEOUT = 60.0


def pytest_addoption(parser: pytest.Parser) -> None:
    group = options.group(parser)
    group.addoption(
        "--hil-boards",
        metavar="FILE",
        type=options.file,
        help="where the targets are described (default: boards.toml in the root directory)",
    )
    group.addoption(
        "--hil-accel",
        choices=("auto", "kvm", "tcg"),
        help="how machines run: by KVM, by emulation (tcg), or by KVM where it works (auto, the "
        "default)",
    )
    group.addoption(
        "--hil-boot-timeout",
        metavar="SECONDS",
        type=options.seconds,
        help=f"how long a machine may take until it is ready (default: {BOOT_TIMEOUT:g})",
    )
    group.addoption(
        "--hil-kernel",
        metavar="FILE",
        type=options.file,
        help="a kernel of your own (bzImage or vmlinux) for all targets",
    )
    group.addoption(
        "--hil-kernel-modules",
        metavar="DIR",
        type=options.directory,
        help="its modules, as `make modules_install INSTALL_MOD_PATH=DIR` leaves them",
    )
    group.addoption(
        "--hil-no-templates",
        action="store_true",
        help="boot each machine instead of cloning one that was booted before",
    )
    group.addoption(
        "--hil-wait",
        metavar="SECONDS",
        type=options.seconds,
        help="how long to wait for a board that somebody else has (default: not at all; workers of "
        "xdist, which take turns: an hour)",
    )
    parser.addini("hil_wait", "seconds to wait for a board that somebody else has")
    parser.addini("hil_boards", "where the targets are described; from the ini file's directory")
    parser.addini("hil_accel", "auto, kvm or tcg")
    parser.addini("hil_boot_timeout", "seconds that a machine may take until it is ready")
    parser.addini(
        "hil_memory_budget",
        'what all machines together may take of the memory, such as "8G" (default: four fifths of '
        f"it); {MEMORY_BUDGET} in the environment comes first",
    )


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("hil_kernel_modules") and not config.getoption("hil_kernel"):
        raise pytest.UsageError("--hil-kernel-modules: for which kernel? add --hil-kernel=FILE")


def bench_of(config: pytest.Config) -> Bench:
    """This process's bench. Raises UsageError when an option or ini value is wrong."""
    found = config.stash.get(_BENCH, None)
    if found is None:
        from pytest_hil.bench import Bench, Settings

        found = config.stash[_BENCH] = Bench(
            Settings(
                root=config.rootpath,
                boards=boards_file(config),
                accel=accel(config),
                boot_timeout=options.chosen(config, "boot_timeout", options.seconds, BOOT_TIMEOUT),
                kernel=_path(config.getoption("hil_kernel")),
                kernel_modules=_path(config.getoption("hil_kernel_modules")),
                templates=not config.getoption("hil_no_templates"),
                memory_budget=_memory_budget(config),
                board_wait=options.chosen(config, "wait", options.seconds, _wait(config)),
                purpose=f"pytest in {config.rootpath.name}",
            ),
            progress=lambda line: status.status_of(config).progress(line),
            say=lambda line: status.status_of(config).say(line),
        )
        # pytest.main() in somebody's program may end without pytest's own last hook.
        config.stash[_AT_EXIT] = atexit.register(partial(_close, config, found))
    return found


def _close(config: pytest.Config, bench: Bench) -> None:
    """The tests have their outcomes: what cannot be given back in order is said, and no more."""
    try:
        bench.close()
    except InfrastructureError as error:
        status.status_of(config).say(f"at the end of the run: {error}")


def made_bench(config: pytest.Config) -> Bench | None:
    """The bench, if anything has needed it."""
    return config.stash.get(_BENCH, None)


def boards_file(config: pytest.Config) -> Path | None:
    """The boards file that was named; None: the one in the root directory, if it is there."""
    option: str | None = config.getoption("hil_boards")
    if option is not None:
        return Path(option)
    named = str(config.getini("hil_boards"))
    if not named:
        return None
    beside = config.inipath.parent if config.inipath else config.rootpath
    return beside / Path(named).expanduser()


def accel(config: pytest.Config) -> Literal["auto", "kvm", "tcg"]:
    word = options.chosen(config, "accel", options.one_of("auto", "kvm", "tcg"), "auto")
    return cast('Literal["auto", "kvm", "tcg"]', word)


def _wait(config: pytest.Config) -> float:
    """Seconds to wait for a board: the workers of one run take turns."""
    return 3600.0 if hasattr(config, "workerinput") else 0.0


def _memory_budget(config: pytest.Config) -> int | None:
    """Bytes; None: by the host's memory."""
    if text := os.environ.get(MEMORY_BUDGET):
        try:
            return _size(text)
        except argparse.ArgumentTypeError as wrong:
            raise pytest.UsageError(f"{MEMORY_BUDGET}: {wrong}") from None
    return options.ini(config, "hil_memory_budget", _size, None)


def _size(text: str) -> int | None:
    from pytest_hil.config.values import BadValue, size

    try:
        return size(text)
    except BadValue as bad:
        raise argparse.ArgumentTypeError(f"{bad}: {bad.mend}") from None


def _path(text: str | None) -> Path | None:
    return None if text is None else Path(text)


def pytest_unconfigure(config: pytest.Config) -> None:
    close = config.stash.get(_AT_EXIT, None)
    if close is not None:
        close()
        atexit.unregister(close)
