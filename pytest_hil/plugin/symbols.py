"""Files and lines in the report of a crash, by the debug information that there is."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_hil.plugin.artifacts import warn

if TYPE_CHECKING:
    from pytest_hil.crash import Crash

# What comes after these follows from them.
_MOST = 3


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addini(
        "hil_symbols",
        "vmlinux, firmware, modules or directories with them, one a line: crashes get their lines",
        type="linelist",
    )


def with_lines(item: pytest.Item, crashes: Sequence[Crash], put: Sequence[Path]) -> list[Crash]:
    """Crashes with ``(file:line)`` in their text. What is wrong with a file is a warning.

    ``put``: the modules that the test put onto the target; one without debug information is none.
    """
    main, modules = _named(item)
    return [
        replace(crash, text=_with_lines(item, crash.text, main, modules, put))
        if number < _MOST
        else crash
        for number, crash in enumerate(crashes)
    ]


def _with_lines(
    item: pytest.Item, text: str, main: Path | None, modules: Sequence[Path], put: Sequence[Path]
) -> str:
    from pytest_hil.crash.symbols import symbolise
    from pytest_hil.errors import HilError

    # One after another: what one file lacks is no loss to the others.
    wanted: list[tuple[Path | None, Sequence[Path]]] = [(None, [each]) for each in modules]
    wanted += [(None, [each]) for each in put if _has_lines(each)]
    wanted += [(main, ())] if main else []
    for elf, others in wanted:
        try:
            text = symbolise(text, elf, others)
        except (HilError, OSError) as error:
            warn(item.config, f"no files and lines for this crash: {error}", item.nodeid)
    return text


def _named(item: pytest.Item) -> tuple[Path | None, list[Path]]:
    """The ini file's kernel or firmware, and its modules."""
    config = item.config
    beside = config.inipath.parent if config.inipath else config.rootpath
    main: Path | None = None
    modules = []
    for line in config.getini("hil_symbols"):
        path = beside / os.path.expanduser(line)  # noqa: PTH111 (one of nobody's stays)
        if path.is_dir():
            modules.append(path)
            path /= "vmlinux"
            if not path.exists():
                continue
        elif not path.exists():
            warn(config, f"hil_symbols: {path} is not there", item.nodeid)
            continue
        if {".ko", ".debug"} & {path.suffix}:
            modules.append(path)
        elif main is None:
            main = path
        else:
            text = f"hil_symbols: {path} is left out: {main} is the kernel or firmware already"
            warn(config, text, item.nodeid)
    return main or _of_kernel(config), modules


def _of_kernel(config: pytest.Config) -> Path | None:
    """The vmlinux beside ``--hil-kernel``, where `pytest-hil kernel build` puts it."""
    given = config.getoption("hil_kernel", None)
    if not given:
        return None
    path = (config.invocation_params.dir / given).with_name("vmlinux")
    return path if _has_lines(path) else None


def _has_lines(path: Path) -> bool:
    from pytest_hil.crash.elf import Elf
    from pytest_hil.errors import ConfigError

    try:
        return Elf(path).has_lines
    except ConfigError:
        return False  # it is gone, or is no module: nobody said that it had any
