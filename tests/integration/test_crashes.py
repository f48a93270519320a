"""Real crashes of a real kernel: each has its kind and its title, and is told of within a second.

The module ``crash_module/`` is built against the headers of the guest's own kernel. By hand,
``HIL_CRASH_ROUNDS=5`` provokes each several times, each time on a machine of its own; the titles
that came are properties in ``--junitxml``.
"""

from __future__ import annotations

import os
import platform
import re
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

from pytest_hil.bench import Bench
from tests.integration.provoke import Case, made, provoke

pytestmark = pytest.mark.slow

HERE = Path(__file__).parent
ROUNDS = int(os.environ.get("HIL_CRASH_ROUNDS", "1"))
# From a report's last line until the test has it, in seconds: what is promised, for most of them,
# and what a busy host may make of a single one.
PROMISED = 1.0
AT_WORST = 5.0

_HUNG = "echo 1 > /proc/sys/kernel/hung_task_timeout_secs"
_LOCKUP = "echo 1 > /proc/sys/kernel/watchdog_thresh"
_STALL = (
    "echo 0 > /proc/sys/kernel/watchdog; "
    "echo 3 > /sys/module/rcupdate/parameters/rcu_cpu_stall_timeout"
)


def _oops(word: str, what: str, where: str = "", *, panic: bool = False) -> Case:
    return Case(word, "oops", f"{what} in {where or word} [hil_crash]", panic)


def _data(word: str, kind: str, what: str) -> Case:
    return Case(word, kind, f"{what} in {word} [hil_crash]")


def _slab(word: str, what: str) -> Case:
    return Case(word, "slab", f"slab corruption: hil_crash: {what}")


_EXPOSED = "Kernel memory exposure attempt detected from SLUB object 'kmalloc-N'"

CASES = (
    _oops("null_read", "NULL pointer dereference"),
    _oops("null_write", "NULL pointer dereference"),
    _oops("null_call", "NULL pointer dereference"),
    _oops("wild_write", "page fault"),
    _oops("not_canonical", "general protection fault"),
    _oops("constant_write", "write to read-only memory"),
    _oops("run_data", "bad instruction fetch"),
    _oops("user_read", "page fault"),
    _oops("past_vmalloc", "page fault"),
    _oops("free_nothing", "page fault"),
    _oops("divide", "divide error"),
    _oops("bad_opcode", "invalid opcode"),
    _oops("breakpoint", "int3", panic=True),
    _oops("stack_overflow", "kernel stack overflow", "deep", panic=True),
    _oops("queue", "NULL pointer dereference", "in_work"),
    _oops("start_timer", "NULL pointer dereference", "in_timer", panic=True),
    _oops("start_kthread", "NULL pointer dereference", "in_thread"),
    Case("interrupt", "bug", "kernel BUG in in_hrtimer [hil_crash]", panic=True),
    _data("a_bug", "bug", "kernel BUG"),
    _data("no_end", "fortify", "buffer overflow in a strlen"),
    _data("free_twice", "bug", "kernel BUG"),
    _data("a_warning", "warning", "WARNING"),
    _data("warning_text", "warning", "WARNING"),
    _data("vfree_twice", "warning", "WARNING"),
    _data("copy_too_much", "warning", "WARNING"),
    _data("wrong_cache", "warning", "WARNING"),
    _data("give_too_much", "usercopy", f"usercopy: {_EXPOSED}"),
    _data("add_twice", "list", "list_add corruption"),
    _data("delete_twice", "list", "list_del corruption"),
    _data("bad_neighbour", "list", "list_del corruption"),
    _data("put_twice", "refcount", "refcount: underflow"),
    _data("get_zero", "refcount", "refcount: addition on N"),
    _data("bad_page", "page", "bad page state"),
    _data("sleep_in_atomic", "atomic", "scheduling while atomic"),
    _slab("write_after_free", "Poison overwritten"),
    _slab("write_past_end", "Right Redzone overwritten"),
    _slab("free_watched_twice", "Slab has N allocated objects but N are to be freed"),
    _slab("leave_objects", "Objects remaining in hil_crash on __kmem_cache_shutdown()"),
    Case("leak_atomic", "workqueue", "workqueue leaked a lock in leaks"),
    Case("mutex_twice", "hung-task", "task hung in mutex_twice [hil_crash]", prepare=_HUNG),
    Case("never_done", "hung-task", "task hung in never_done [hil_crash]", prepare=_HUNG),
    Case("spin", "soft-lockup", "soft lockup in spin [hil_crash]", prepare=_LOCKUP, cpus=2),
    Case("lock_twice", "soft-lockup", "soft lockup in lock_twice [hil_crash]", False, _LOCKUP, 2),
    Case("read_side", "rcu-stall", "RCU stall in read_side [hil_crash]", prepare=_STALL, cpus=2),
    Case("a_panic", "panic", "panic: hil_crash: N is too many", panic=True),
    Case("stack_smash", "stack-protector", "stack corruption in stack_smash [hil_crash]", True),
    Case("echo c > /proc/sysrq-trigger", "panic", "panic: sysrq triggered crash", panic=True),
    Case("dd if=/dev/zero of=/dev/null bs=200M", "oom", "out of memory: killed dd"),
    Case("/tmp/segfault 2>&1", "segfault", "segfault of segfault"),
)


# Much like another one: only by hand.
_TWINS = {
    *("null_write", "start_kthread", "warning_text", "wrong_cache", "delete_twice"),
    *("write_past_end", "free_watched_twice", "never_done", "lock_twice"),
}


def chosen() -> tuple[Case, ...]:
    return CASES if ROUNDS > 1 else tuple(case for case in CASES if case.word not in _TWINS)


# --- the module --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def module(bench: Bench, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The module for the guest's kernel, small enough to be put into each machine."""
    if platform.machine() != "x86_64":
        pytest.skip("the headers of an x86-64 kernel are for x86-64 hosts")
    guest = bench.open(bench.target("qemu"))
    release = guest.run("uname -r").stdout.strip()
    guest.close()
    headers = Path("/lib/modules", release, "build")
    if not (headers / "Makefile").exists():
        there = sorted(path.parent.name for path in Path("/lib/modules").glob("*/build"))
        pytest.fail(
            f"the guest's kernel is {release}, and its headers are not installed (there are: "
            f"{', '.join(there) or 'none'}): apt-get install linux-headers-{release}. Where apt "
            "has only a newer one, the guest's image is older than it: pytest-hil image rm debian",
            pytrace=False,
        )
    return made(headers, tmp_path_factory.mktemp("module"))


@pytest.fixture(scope="module")
def segfault(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A program that reads what is not there."""
    source = tmp_path_factory.mktemp("program") / "segfault.c"
    source.write_text("int main(void) { return *(volatile int *)16; }\n")
    program = source.with_suffix("")
    argv = ["gcc", "-static", "-o", str(program), str(source)]
    subprocess.run(argv, check=True, timeout=120)
    return program


# --- each of them ------------------------------------------------------------------------------


# From each report's last line on the console until the test had it, in seconds.
_LATE: list[float] = []


@pytest.mark.parametrize("case", chosen(), ids=lambda case: re.sub(r"\W+", "-", case.word))
def test_a_crash_is_told_of(
    case: Case,
    bench: Bench,
    module: Path,
    segfault: Path,
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> None:
    found = []
    for number in range(ROUNDS):
        guest = bench.open(bench.target("qemu", smp=case.cpus))
        try:
            guest.put(module, "/tmp/hil_crash.ko")
            guest.put(segfault, "/tmp/segfault", mode=0o755)
            guest.run("insmod /tmp/hil_crash.ko")
            crash, late = provoke(guest, case, tmp_path / str(number))
        finally:
            guest.close()
        found.append(crash)
        _LATE.append(late)
        request.node.user_properties.append(("late", round(late, 3)))
    titles = sorted({crash.title for crash in found})
    request.node.user_properties += [("title", title) for title in titles]
    said = [(crash.kind, crash.title, bool(crash.panic), crash.corrupted) for crash in found]
    assert said == [(case.kind, case.title, case.panic, False)] * ROUNDS
    assert max(_LATE[-ROUNDS:]) < AT_WORST


def test_they_are_told_of_within_a_second() -> None:
    """Nearly all of them: a host that is busy with something else may be late with a few."""
    if len(_LATE) < 25:
        pytest.skip("only after the others")
    assert statistics.quantiles(_LATE, n=10)[-1] < PROMISED, sorted(_LATE)


def test_the_example_of_the_documentation_names_the_line(module: Path, tmp_path: Path) -> None:
    """From a planted bug in a driver's source to its line in a red test's report."""
    example = HERE.parents[1] / "docs" / "examples" / "howto" / "module"
    argv = [sys.executable, "-m", "pytest", "--hil-target=qemu", "--hil-accel=tcg"]
    done = subprocess.run(
        [*argv, f"--hil-artifacts={tmp_path}", "-p", "no:cacheprovider", str(example)],
        env={**os.environ, "HIL_RING_BUG": "1", "COLUMNS": "200"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
    )
    said = done.stdout
    assert done.returncode == 1, said + done.stderr
    assert "1 failed, 1 passed" in said
    title = "crash: NULL pointer dereference in ring_read [ring]"
    assert re.search(rf"^FAILED .*::test_gives_it_back_once - {re.escape(title)}$", said, re.M)
    source = (example / "ring.c").read_text().splitlines()
    line = next(number for number, text in enumerate(source, 1) if "the bug:" in text)
    assert re.search(rf"RIP: 0010:ring_read\+\S+ \[ring\] \(\S*/ring\.c:{line}\)", said)
