"""Coverage of what runs in real guests: the same counts as here, and none that are wrong."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pytest_hil.bench import Bench, Settings
from pytest_hil.coverage.collect import Collector, Found
from pytest_hil.coverage.gcov import Counters, Gcov
from pytest_hil.coverage.model import FileCoverage
from pytest_hil.coverage.paths import Sources
from pytest_hil.coverage.shard import Shard
from pytest_hil.qemu.guest import Guest
from tests.coverage.conftest import EXAMPLE, SUPPORT, gcc
from tests.coverage.test_records import as_of_a_kernel

pytestmark = pytest.mark.machine

DUMP = """
#include <fcntl.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <signal.h>
#include "work.h"
/* Ends in the middle of its counters: a file may not grow any longer. */
int main(int argc, char **argv)
{
    work();
    if (argc > 1) {
        struct rlimit small = {100, 100};
        setrlimit(RLIMIT_FSIZE, &small);
    }
    return 0;
}
"""


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Static programs for the guest, which has no libraries of this host."""
    directory = tmp_path_factory.mktemp("build")
    for name in ("work.c", "work.h", "program.c"):
        shutil.copy(EXAMPLE / name, directory)
    (directory / "dying.c").write_text(DUMP)
    gcc(directory, "--coverage", "-O0", "-c", "work.c", "program.c", "dying.c")
    for name in ("program", "dying"):
        gcc(directory, "--coverage", "-static", "work.o", f"{name}.o", "-o", name)
    return directory


@pytest.fixture(scope="module")
def machine(bench: Bench) -> Iterator[Guest]:
    """One machine for those that leave nothing behind."""
    made = bench.open(bench.target("qemu"))
    yield made
    made.close()


@contextmanager
def collecting(guest: Guest, build: Path, into: Path, **options: str) -> Iterator[Found]:
    """What a block's commands on a guest came to."""
    collector = Collector(guest, Sources((build,)), **options)
    collector.begin(into)
    found = Found()
    yield found
    end = collector.end("the test")
    guest.follower = None
    found.files, found.problems, found.notes = end.files, end.problems, end.notes


def natively(build: Path, *runs: list[str]) -> list[FileCoverage]:
    """The same runs of the same program on this host."""
    for arguments in runs:
        subprocess.run([build / "program", *arguments], check=True, capture_output=True, timeout=60)
    found = sorted(build.glob("*.gcda"))
    read = Gcov(Sources((build,))).read([Counters(path, str(path)) for path in found])
    for path in found:
        path.unlink()
    assert read.problems == []
    return read.files


def test_counts_are_those_of_a_native_run(machine: Guest, build: Path, tmp_path: Path) -> None:
    with collecting(machine, build, tmp_path) as found:
        machine.put(build / "program", "/root/program")
        machine.run("/root/program")
        machine.run(["/root/program", "-4"])
        assert machine.run("/root/program 7; exit 3", check=False).exit_code == 3
    assert (found.problems, found.notes) == ([], [])
    assert found.files == natively(build, [], ["-4"], ["7"])
    assert [file.lines for file in Shard(tmp_path / "coverage.jsonl")] == [
        file.lines for file in found.files
    ]
    # Nothing stays for the next test, and nothing of a user's environment was touched.
    assert "GCOV" not in machine.run("env").stdout


def test_the_next_test_begins_at_zero(machine: Guest, build: Path, tmp_path: Path) -> None:
    machine.put(build / "program", "/root/program")
    collector = Collector(machine, Sources((build,)))
    one_run = natively(build, ["5"])
    for number in range(2):
        collector.begin(tmp_path / str(number))
        machine.run("/root/program 5")
        assert collector.end(str(number)).files == one_run
    machine.follower = None


def test_what_came_before_a_crash_is_kept(bench: Bench, build: Path, tmp_path: Path) -> None:
    """Also what came before a reset, a return to a snapshot, a power cut: each counts once."""
    guest = bench.open(bench.target("qemu"))
    program = build / "program"
    with collecting(guest, build, tmp_path) as found:
        guest.put(program, "/program")
        guest.run("/program 1")
        snapshot = guest.snapshot()
        guest.run("/program 2")
        guest.restore(snapshot)
        guest.run("/program 3")
        guest.reset()
        guest.put(program, "/program")
        guest.run("/program 4")
        guest.power.cycle()
        guest.put(program, "/program")
        guest.run("/program 5")
        guest.run("(sleep 0.2; echo c > /proc/sysrq-trigger) >/dev/null 2>&1 &")
        guest.console.expect("Kernel panic", timeout=60)
        guest.close()
    assert found.problems == []
    assert found.files == natively(build, *([str(n)] for n in range(1, 6)))


def test_a_program_killed_in_mid_dump_is_said(machine: Guest, build: Path, tmp_path: Path) -> None:
    """Its earlier run counts, what it was writing does not, and later runs count again."""
    machine.put(build / "dying", "/root/dying")
    machine.put(build / "program", "/root/program")
    with collecting(machine, build, tmp_path) as found:
        machine.run("/root/dying")
        assert machine.run("/root/dying small", check=False).exit_code != 0
        machine.run("/root/program 5")
    files = {Path(file.path).name: file for file in found.files}
    (problem,) = found.problems
    assert f"{build}/work.gcda is truncated" in str(problem)
    counts = {name: count for (_, name), count in files["work.c"].functions.items()}
    # One run of work(), and one classify() of the program's.
    assert counts["work"] == 1
    assert counts["classify"] == 16 + 1
    assert found.notes == []


def test_another_build_is_an_error(machine: Guest, build: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(build, other)
    (other / "work.c").write_text((other / "work.c").read_text() + "int more(void){return 1;}\n")
    gcc(other, "--coverage", "-O0", "-c", "work.c")
    machine.put(build / "program", "/root/program")
    collector = Collector(machine, Sources((other,), mapping=((str(build), str(other)),)))
    collector.begin(tmp_path / "found")
    machine.run("/root/program")
    found = collector.end("the test")
    machine.follower = None
    (problem,) = found.problems
    assert f"{build}/work.gcda is of another build than {other}/work.gcno" in str(problem)
    assert [Path(file.path).name for file in found.files] == ["program.c"]


def test_a_kernels_counters(machine: Guest, build: Path, tmp_path: Path) -> None:
    """A tree as debugfs has it, of real counters; with a kernel that counts, it is elsewhere."""
    expected = natively(build, ["7"])
    subprocess.run([build / "program", "7"], check=True, capture_output=True, timeout=60)
    tree = tmp_path / f"tree{build}"
    tree.mkdir(parents=True)
    for path in build.glob("*.gcda"):
        (tree / path.name).write_bytes(as_of_a_kernel(path.read_bytes()))
        (tree / path.with_suffix(".gcno").name).symlink_to(path.with_suffix(".gcno"))
        path.unlink()
    (tmp_path / "tree" / "reset").touch()
    machine.put(tmp_path / "tree", "/tmp/gcov")
    with collecting(machine, build, tmp_path / "found", kernel_tree="/tmp/gcov") as found:
        machine.run("true")
    assert (found.problems, found.notes) == ([], [])
    assert found.files == expected
    assert machine.run("cat /tmp/gcov/reset").stdout == "0\n"
    cut = next(tree.glob("work.gcda"))
    machine.run(
        [
            "sh",
            "-c",
            'head -c 90 "$1" > "$1.cut"; mv "$1.cut" "$1"',
            "sh",
            f"/tmp/gcov{build}/{cut.name}",
        ]
    )
    with collecting(machine, build, tmp_path / "again", kernel_tree="/tmp/gcov") as found:
        machine.run("true")
    assert "work.gcda is truncated" in str(found.problems[0])
    assert [Path(file.path).name for file in found.files] == ["program.c"]
    machine.run("rm -r /tmp/gcov")


FIRMWARE = """
[target.m3]
backend = "qemu"
arch = "arm"
machine = "mps2-an385"
kernel = "firmware.elf"
agent = false
ready = "firmware is up"
"""


@pytest.fixture(scope="module")
def firmware(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The how-to's firmware, with what is measured compiled as for the host."""
    if not shutil.which("arm-none-eabi-gcc"):
        pytest.skip("arm-none-eabi-gcc is not installed: apt-get install gcc-arm-none-eabi")
    directory = tmp_path_factory.mktemp("firmware")
    for path in EXAMPLE.iterdir():
        if path.suffix in (".c", ".h", ".ld"):
            shutil.copy(path, directory)
    (directory / "boards.toml").write_text(FIRMWARE)
    core = ("-mcpu=cortex-m3", "-mthumb", "-ffreestanding", "-I", str(SUPPORT))
    measured = ("--coverage", "-fprofile-info-section", "-O0")
    cross = "arm-none-eabi-gcc"
    gcc(directory, *core, *measured, "-c", "work.c", compiler=cross)
    support = ("-c", "firmware.c", str(SUPPORT / "hil_gcov.c"))
    gcc(directory, *core, "-O1", "-Wall", "-Wextra", "-Werror", *support, compiler=cross)
    objects = ("work.o", "firmware.o", "hil_gcov.o", "-lgcov", "-lgcc")
    script = ("-nostdlib", "-T", "layout.ld", "-o", "firmware.elf")
    gcc(directory, *core, *script, *objects, compiler=cross)
    return directory


@pytest.fixture(scope="module")
def bench_of_m3(firmware: Path) -> Iterator[Bench]:
    with Bench(Settings(root=firmware)) as made:
        yield made


def of_work(files: list[FileCoverage]) -> FileCoverage:
    return next(file for file in files if file.path.endswith("/work.c"))


@pytest.mark.slow
def test_one_program_natively_in_a_guest_and_over_a_uart(
    machine: Guest, build: Path, bench_of_m3: Bench, firmware: Path, tmp_path: Path
) -> None:
    native = of_work(natively(build, []))
    with collecting(machine, build, tmp_path / "guest") as in_guest:
        machine.put(build / "program", "/root/program")
        machine.run("/root/program")
    board = bench_of_m3.open(bench_of_m3.target("m3"))
    with collecting(board, firmware, tmp_path / "m3") as on_board:
        board.console.send("c")
        board.console.expect("counters sent", timeout=60)
    board.close()
    assert (on_board.problems, in_guest.problems) == ([], [])
    for found in (of_work(in_guest.files), of_work(on_board.files)):
        assert found.lines == native.lines
        assert found.functions == native.functions
        assert found.branches == native.branches


@pytest.mark.slow
def test_firmware_that_is_reset_and_asked_again(
    bench_of_m3: Bench, firmware: Path, tmp_path: Path
) -> None:
    """Counters go on until a reset; each test has what came in its own time."""
    board = bench_of_m3.open(bench_of_m3.target("m3"))
    collector = Collector(board, Sources((firmware,)))
    works: list[int] = []

    def test(*steps: str) -> None:
        collector.begin(tmp_path / str(len(works)))
        for step in steps:
            if step == "reset":
                board.reset()
            elif step == "cycle":
                board.power.cycle()
            else:
                board.console.send(step)
                if step == "c":
                    board.console.expect("counters sent", timeout=60)
        found = collector.end("test")
        assert found.problems == []
        functions = {name: n for (_, name), n in of_work(found.files).functions.items()}
        works.append(functions["work"])

    test("c")  # its start
    test("w", "w", "c")  # two more
    test("w", "c", "c", "reset", "c")  # one, and another start
    test("w", "c", "cycle", "w", "w", "c")  # one, and a start and two
    assert works == [1, 2, 2, 4]
    board.close()
