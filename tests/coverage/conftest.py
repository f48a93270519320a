"""Real programs with gcc's counters: the source of the how-to, built here."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from pytest_hil.coverage.paths import Sources

EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "howto" / "coverage"
SUPPORT = Path(__file__).parents[2] / "pytest_hil" / "coverage" / "target"

# The firmware's part of the conversation, as a program of this host: writes to standard output,
# reads from standard input.
_FIRMWARE = """
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include "hil_gcov.h"
#include "work.h"
static void out(const void *data, unsigned size, void *arg)
{
    static int texts;
    const char *noise = getenv("NOISE");
    if (noise && texts++ % 5 == 0)
        if (write(1, noise, __builtin_strlen(noise)) < 0) _exit(1);
    if (write(1, data, size) < 0) _exit(1);
}
static int in(void *arg)
{
    unsigned char c;
    return read(0, &c, 1) == 1 ? c : -1;
}
int main(int argc, char **argv)
{
    struct hil_gcov_io io = {.write = out, .read = argc > 1 ? in : NULL};
    for (int dump = 0; dump < 2; dump++) {
        work();
        if (write(1, "hello\\n", 6) < 0 || !hil_gcov_dump(&io)) return 1;
        if (write(1, "and on\\n", 7) < 0) return 1;
    }
    _exit(0);
}
"""


def gcc(directory: Path, *arguments: str, compiler: str = "gcc") -> None:
    subprocess.run([compiler, *arguments], cwd=directory, check=True, timeout=120)


def build_program(directory: Path, *options: str) -> Path:
    """The example's program with its counters, and its source beside it."""
    for name in ("work.c", "work.h", "program.c"):
        shutil.copy(EXAMPLE / name, directory)
    gcc(directory, "--coverage", "-O0", *options, "-c", "work.c", "program.c")
    gcc(directory, "--coverage", *options, "work.o", "program.o", "-o", "program")
    return directory / "program"


@pytest.fixture
def program(tmp_path: Path) -> Path:
    return build_program(tmp_path)


@pytest.fixture
def counted(program: Path) -> Path:
    """The directory of a program that ran once: its .gcda and .gcno are there."""
    subprocess.run([program], check=True, capture_output=True, timeout=60)
    return program.parent


@pytest.fixture
def sources(tmp_path: Path) -> Sources:
    return Sources((tmp_path,))


@pytest.fixture(scope="session")
def dumper(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A program that sends its counters as firmware does, twice; with an argument, it receives."""
    directory = tmp_path_factory.mktemp("dumper")
    for name in ("work.c", "work.h"):
        shutil.copy(EXAMPLE / name, directory)
    (directory / "firmware.c").write_text(_FIRMWARE)
    section = "-fprofile-info-section=gcov_info"
    gcc(directory, "--coverage", section, "-O0", "-c", "work.c")
    gcc(directory, "-O1", "-I", str(SUPPORT), "-c", "firmware.c", str(SUPPORT / "hil_gcov.c"))
    symbols = "--defsym=__gcov_info_start=__start_gcov_info"
    ends = "--defsym=__gcov_info_end=__stop_gcov_info"
    objects = ("work.o", "firmware.o", "hil_gcov.o")
    gcc(directory, *objects, f"-Wl,{symbols},{ends}", "-lgcov", "-o", "dumper")
    return directory / "dumper"
