"""Crashes on purpose: the module that has them, and what a machine makes of one."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from pytest_hil.crash import Crash
from pytest_hil.errors import Crashed
from pytest_hil.qemu.guest import Guest

SOURCE = Path(__file__).parent / "crash_module"


@dataclass(frozen=True)
class Case:
    """``word`` for the module, or a whole command; ``title`` without ``[hil_crash]``."""

    word: str
    kind: str
    title: str
    panic: bool = False
    prepare: str = "true"
    cpus: int = 1

    @property
    def command(self) -> str:
        return self.word if " " in self.word else f"echo {self.word} > /proc/hil_crash"


def made(headers: Path, build: Path) -> Path:
    """The module for a kernel with these headers, small enough to be put into each machine."""
    for path in SOURCE.iterdir():
        shutil.copy(path, build)
    # What a make around us has set is not for this one.
    env = {name: value for name, value in os.environ.items() if "MAKE" not in name}
    done = subprocess.run(
        ["make", "-C", str(headers), f"M={build}", "modules"],
        env=env,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = build / "hil_crash.ko"
    subprocess.run(["objcopy", "--strip-debug", str(found)], check=True, timeout=60)
    return found


def provoke(guest: Guest, case: Case, directory: Path) -> tuple[Crash, float]:
    """What comes of it, while a command waits that would never have noticed; and how many seconds
    after the report's last line on the console the test had it.
    """
    guest.console.record(directory)
    watch = guest.watch_crashes(None)
    with pytest.raises(Crashed):
        guest.run(f"{case.prepare}; ({case.command}) & exec sleep 600", timeout=120)
    # As the plugin does it: what ended the command is told when it was read to its end.
    crashes = watch.settle(0, certain=True)
    now = datetime.now(UTC)
    assert crashes, guest.console.text()
    return crashes[0], (now - said_at(directory, crashes[-1].text.splitlines()[-1])).total_seconds()


def said_at(directory: Path, line: str) -> datetime:
    """When the console said the end of a line: by the transcript, as the bytes came."""
    first, *pieces = map(json.loads, (directory / "console.jsonl").read_text().splitlines())
    text = ""
    found = None
    for piece in pieces:
        before, text = text, text + piece.get("data", "")
        if line in text[max(0, len(before) - len(line)) :]:
            found = piece["t"]
    assert found is not None, f"{line!r} is not in {text}"
    return datetime.fromisoformat(first["wall"]) + timedelta(seconds=found)
