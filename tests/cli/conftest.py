"""The real command line as a process, with a runtime directory of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pexpect  # type: ignore[import-untyped]
import pytest

Terminal = Callable[..., Any]
"""Runs the command line with these arguments at a terminal: a ``pexpect.spawn``."""

ROOT = Path(__file__).parents[2]
ARGV = [sys.executable, "-m", "pytest_hil.cli.main"]


@dataclass
class Cli:
    """``cli("vm", "list")``: runs it and checks its exit code; what it said."""

    cwd: Path
    env: dict[str, str] = field(default_factory=dict)

    def __call__(
        self, *arguments: str, code: int = 0, input: str | None = None, timeout: float = 120
    ) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [*ARGV, *arguments],
            cwd=self.cwd,
            env=self.env,
            input=input,
            stdin=subprocess.DEVNULL if input is None else None,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
        return done

    def json(self, *arguments: str, code: int = 0) -> Any:
        return json.loads(self(*arguments, "--json", code=code).stdout)

    def error(self, *arguments: str, code: int = 2) -> str:
        """It fails; what it said on stderr."""
        return self(*arguments, code=code).stderr

    def start(self, arguments: Sequence[str], **how: Any) -> subprocess.Popen[bytes]:
        return subprocess.Popen([*ARGV, *arguments], cwd=self.cwd, env=self.env, **how)


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cli]:
    """Its working directory is empty; this process shares its runtime directory.

    The path of that is longer than a socket's may be.
    """
    temporary = tmp_path / ("t" * 100)
    temporary.mkdir()
    (tmp_path / "project").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    kept = {key: value for key, value in os.environ.items() if key not in ("COLUMNS", "LINES")}
    env = {**kept, "PYTHONPATH": str(ROOT), "TMPDIR": str(temporary), "TERM": "xterm"}
    cli = Cli(tmp_path / "project", env)
    yield cli
    cli("vm", "stop", "--all")


@pytest.fixture
def runtime_dir(cli: Cli) -> Path:
    return Path(cli.env["TMPDIR"]) / f"pytest-hil-{os.getuid()}"


@pytest.fixture
def terminal(cli: Cli) -> Terminal:
    def run(*arguments: str) -> Any:
        return pexpect.spawn(
            ARGV[0],
            [*ARGV[1:], *arguments],
            env=cli.env,
            cwd=str(cli.cwd),
            timeout=30,
            encoding="utf-8",
            codec_errors="replace",
        )

    return run
