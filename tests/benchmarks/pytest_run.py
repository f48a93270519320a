"""A whole run of the real pytest on a generated test file, in a process of its own."""

from __future__ import annotations

import os
import re
import shutil
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from pytest_hil import process

_CHANGES_COURSE = re.compile(r"PYTHON(?!PATH)|PYTEST_(?!HIL_CACHE)")


def run_pytest(
    directory: Path,
    files: Mapping[str, str],
    *arguments: str,
    plugins: tuple[str, ...] = (),
    python: str = sys.executable,
    env: Mapping[str, str] | None = None,
    timeout: float = 600,
) -> float:
    """Its seconds on the wall, from its start to its exit. Raises ProcessFailed if a test fails.

    ``plugins`` are the only ones that it loads, whatever else is installed; ``env`` is added to its
    environment. The directory is made
    when it is not there and stays, so that a second run finds compiled files, as a user's would.
    """
    directory.mkdir(exist_ok=True)
    for name, text in {"pytest.ini": "[pytest]\n", **files}.items():
        if not (directory / name).exists():
            (directory / name).write_text(text)
    loaded = [word for name in plugins for word in ("-p", name)]
    argv = [python, "-m", "pytest", "-q", "--import-mode=importlib", *loaded, *arguments]
    began = time.perf_counter()
    environment = _environment(directory / ".compiled") | dict(env or {})
    process.run(argv, timeout=timeout, cwd=directory, env=environment)
    seconds = time.perf_counter() - began
    # The artifacts of one run are nothing that the next should find.
    shutil.rmtree(directory / ".hil", ignore_errors=True)
    return seconds


def _environment(compiled: Path) -> dict[str, str]:
    """Ours, without what would change the course of Python or pytest, or that of the plugin.

    An installed package is compiled. A checkout may not be, or may not be allowed to: what is
    compiled goes into a directory of ours, and is there from the second run on.
    """
    ours = {name: value for name, value in os.environ.items() if not _CHANGES_COURSE.match(name)}
    return ours | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTHONPYCACHEPREFIX": str(compiled)}
