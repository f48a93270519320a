"""A crash's report has files and lines where there is debug information."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from pytest_hil.crash.elf import Elf

SOURCE = """\
int sink;
int NAME_open(int *p)
{
    sink = 1;
    return *p;
}
"""
# What a kernel prints for a WARN_ON, printed by a program.
TEST = """
FRAMES = "FRAMES_OF_ALL"
def warn(hil):
    lines = ["------------[ cut here ]------------",
             "WARNING: CPU: 0 PID: 77 at drivers/one.c:12 FIRST",
             "CPU: 0 PID: 77 Comm: cat Tainted: G  O  6.1.0-37-amd64 #1  Debian 6.1.140-1",
             "RIP: 0010:FIRST", "Call Trace:", *FRAMES.split("|"),
             "---[ end trace 0000000000000000 ]---"]
    hil.run("".join(f"echo '<4>{line}' > /dev/kmsg\\n" for line in lines))
def test_it(hil):
    hil.put("modules/three.ko", "/tmp/")
    hil.put("bare.ko", "/tmp/")
    warn(hil)
"""


def module(directory: Path, name: str, *options: str) -> str:
    """Build it; a frame in it, as the kernel prints it."""
    source = directory / f"{name}.c"
    source.write_text(SOURCE.replace("NAME", name))
    path = directory / f"{name}.ko"
    argv = ["gcc", "-O1", "-c", *options, "-o", str(path), str(source)]
    subprocess.run(argv, check=True, timeout=60)
    size = Elf(path).functions[f"{name}_open"][0].sizes[0]
    # As it returns to the last instruction, the call was the one before.
    return f"{name}_open+{size - 1:#x}/{size:#x} [{name}]"


@pytest.mark.machine
def test_lines_of_modules_and_what_is_wrong_with_files(inner: Any) -> None:
    (inner.directory / "modules").mkdir()
    frames = [
        module(inner.directory, "one", "-g"),
        module(inner.directory / "modules", "two", "-g"),
        module(inner.directory / "modules", "three", "-g"),
        module(inner.directory, "bare"),
        re.sub(r"\+\S+", "+0x1/0x5", module(inner.directory, "other", "-g")),
    ]
    text = TEST.replace("FRAMES_OF_ALL", "|".join(f" {each}" for each in frames))
    inner.write(text.replace("FIRST", frames[0]))
    named = "one.ko\n modules/two.ko\n bare.ko\n other.ko\n gone.ko\n"
    inner.write(f"[pytest]\nhil_symbols =\n {named}", "pytest.ini")
    assert inner.run("--hil-target=qemu", env={"COLUMNS": "200"}) == 1
    for number, name in enumerate(("one", "two", "three")):
        assert f" {frames[number]} ({inner.directory}" in inner.text
        assert f"{name}.c:5)\n" in inner.text
    for frame in frames[3:]:
        assert f" {frame}\n" in inner.text
    # By the ini file; that the one which was put has none is no matter.
    assert inner.text.count("bare.ko: it has no debug information") == 1
    assert "other.ko: it is of another build" in inner.text
    assert "hil_symbols: " in inner.text
    assert "gone.ko is not there" in inner.text
    (crash,) = (inner.directory / ".hil" / "latest").glob("*test_it*/crash.txt")
    assert "one.c:5)" in crash.read_text()
