"""Kernels that find bugs, built from the distribution's source and booted: they find them.

What is provoked is lkdtm's, the kernel's own module for that (drivers/misc/lkdtm), and what
``crash_module/`` has for such kernels. ``HIL_CRASH_ROUNDS=5`` as in test_crashes.py.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pytest_hil.bench import Bench, Settings
from pytest_hil.cache import Cache
from pytest_hil.coverage.gcov import Gcov
from pytest_hil.coverage.kernel import KernelCounters, counters
from pytest_hil.coverage.paths import Sources
from pytest_hil.qemu.guest import Guest
from pytest_hil.qemu.kernel_build.build import Built, build
from pytest_hil.qemu.kernel_build.fragments import parse
from pytest_hil.qemu.kernel_build.source import of_distribution
from tests.integration.provoke import Case, made, provoke

pytestmark = pytest.mark.kernels

ROUNDS = int(os.environ.get("HIL_CRASH_ROUNDS", "1"))
# From a report's last line until the test has it, in seconds; one CPU emulates two here.
AT_WORST = 5.0

CHECKED, RACES = parse("gcov,kasan,lockdep,ubsan,lkdtm"), parse("kcsan,lkdtm")


def instrumented(features: tuple[str, ...]) -> Built:
    cache = Cache.default()
    source = of_distribution(cache, arch="x86_64", progress=print)
    return build(source, features, arch="x86_64", cache=cache, progress=print)


def bench_of(built: Built, root: Path) -> Bench:
    return Bench(Settings(root=root, kernel=built.kernel, accel="tcg", boot_timeout=600))


@pytest.fixture(scope="module")
def checked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    with bench_of(instrumented(CHECKED), tmp_path_factory.mktemp("checked")) as bench:
        yield bench


@pytest.fixture(scope="module")
def module(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made(instrumented(CHECKED).modules, tmp_path_factory.mktemp("module"))


@pytest.fixture
def guest(checked: Bench) -> Iterator[Guest]:
    opened = checked.open(checked.target("qemu"))
    yield opened
    opened.close()


def test_it_says_what_it_is(guest: Guest) -> None:
    kernel = guest.kernel
    assert kernel.config["KASAN"] == "y"
    assert kernel.config["VIRTIO_CONSOLE"] == "y"
    assert {"kasan", "lockdep", "ubsan"} <= kernel.features
    assert kernel.version == instrumented(CHECKED).version
    assert not kernel.taint


def test_the_machine_s_devices_are_built_in(guest: Guest) -> None:
    assert "eth0" in guest.run("ls /sys/class/net").stdout
    assert "virtio_rng" in guest.run("cat /sys/class/misc/hw_random/rng_available").stdout
    assert guest.run("ls -d /sys/devices/platform/vhci_hcd.0").ok
    said = guest.run("cat /proc/filesystems").stdout.split()
    assert {"ext4", "9p", "vfat", "devtmpfs"} <= set(said)


def _lkdtm(what: str, kind: str, title: str) -> Case:
    command = f"echo {what} > /sys/kernel/debug/provoke-crash/DIRECT"
    return Case(command, kind, title, prepare="mount -t debugfs none /sys/kernel/debug || :")


def _ours(word: str, kind: str, what: str, where: str = "") -> Case:
    return Case(word, kind, f"{what} in {where or word} [hil_crash]")


CASES = (
    _lkdtm("WRITE_AFTER_FREE", "kasan", "KASAN: use-after-free write in lkdtm_WRITE_AFTER_FREE"),
    _lkdtm("ARRAY_BOUNDS", "ubsan", "UBSAN: array-index-out-of-bounds in lkdtm_ARRAY_BOUNDS"),
    _ours("read_freed", "kasan", "KASAN: use-after-free read"),
    _ours("write_past_slab", "kasan", "KASAN: slab-out-of-bounds write"),
    _ours("read_past_stack", "kasan", "KASAN: stack-out-of-bounds read"),
    _ours("read_past_global", "kasan", "KASAN: global-out-of-bounds read"),
    _ours("past_vmalloc", "kasan", "KASAN: vmalloc-out-of-bounds write"),
    _ours("free_twice", "kasan", "KASAN: double-free"),
    # KASAN's shadow of a pointer to nowhere is nowhere, too.
    _ours("null_read", "oops", "general protection fault"),
    _ours("shift_too_far", "ubsan", "UBSAN: shift-out-of-bounds"),
    _ours("index_past_end", "ubsan", "UBSAN: array-index-out-of-bounds"),
    _ours("bad_bool", "ubsan", "UBSAN: invalid-load"),
    _ours("lock_order", "lockdep", "lockdep: circular locking"),
    _ours("lock_recursion", "lockdep", "lockdep: recursive locking"),
    _ours("irq_unsafe", "lockdep", "lockdep: inconsistent lock state", "locks_raw"),
    _ours("wait_in_irq", "lockdep", "lockdep: invalid wait context", "locks"),
    _ours("unlock_free", "lockdep", "lockdep: bad unlock"),
    _ours("free_held", "lockdep", "lockdep: held lock freed"),
    _ours("keep_lock", "lockdep", "lockdep: lock held when returning to user space"),
    _ours("rcu_unprotected", "lockdep", "lockdep: suspicious RCU usage"),
    _ours("mutex_in_atomic", "atomic", "sleeping in atomic context"),
)


@pytest.mark.parametrize("case", CASES, ids=lambda case: re.sub(r"\W+", "-", case.title))
def test_a_bug_is_found_by_its_title(
    case: Case, checked: Bench, module: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    for number in range(ROUNDS):
        guest = checked.open(checked.target("qemu"))
        try:
            guest.put(module, "/tmp/hil_crash.ko")
            guest.run("insmod /tmp/hil_crash.ko")
            crash, late = provoke(guest, case, tmp_path / str(number))
        finally:
            guest.close()
        request.node.user_properties += [("late", round(late, 3)), ("title", crash.title)]
        assert (crash.kind, crash.title, crash.corrupted) == (case.kind, case.title, False)
        assert late < AT_WORST


def test_a_race_is_found(tmp_path: Path) -> None:
    built = instrumented(RACES)
    (tmp_path / "module").mkdir()
    module = made(built.modules, tmp_path / "module")
    title = "KCSAN: data-race in count [hil_crash] / count [hil_crash]"
    case = Case("race", "kcsan", title, cpus=2)
    with bench_of(built, tmp_path) as bench:
        guest = bench.open(bench.target("qemu", smp=case.cpus))
        try:
            guest.put(module, "/tmp/hil_crash.ko")
            guest.run("insmod /tmp/hil_crash.ko")
            crash, _late = provoke(guest, case, tmp_path / "artifacts")
        finally:
            guest.close()
    assert (crash.kind, crash.title) == (case.kind, case.title)


def test_the_counters_of_a_path_are_right(guest: Guest, tmp_path: Path) -> None:
    built = instrumented(CHECKED)
    source = Path(built.source)
    there = KernelCounters(guest, "/tmp/counters")
    there.check()
    there.reset()
    guest.run("cat /proc/uptime /proc/uptime /proc/uptime")
    there.fetch(tmp_path / "counters")
    mine = [each for each in counters(tmp_path / "counters") if each.built.endswith("/uptime.gcda")]
    read = Gcov(Sources((source,))).read(mine)
    assert read.problems == []
    (file,) = [file for file in read.files if file.path.endswith("fs/proc/uptime.c")]
    text = (source / "fs/proc/uptime.c").read_text().splitlines()
    line = next(number for number, code in enumerate(text, 1) if "seq_printf(m," in code)
    assert file.lines[line] == 3


def test_the_second_call_only_looks() -> None:
    said: list[str] = []
    cache = Cache.default()
    source = of_distribution(cache, arch="x86_64", progress=said.append)
    first = instrumented(CHECKED)
    assert build(source, CHECKED, arch="x86_64", cache=cache, progress=said.append) == first
    assert said == []
    assert first.kernel.stat().st_size > 4_000_000


def test_the_example_of_the_documentation_shows_the_path(tmp_path: Path) -> None:
    """Its driver's bug, on a kernel that counts: what ran before the crash, and what did not."""
    built = instrumented(CHECKED)
    example = tmp_path / "module"
    shutil.copytree(Path(__file__).parents[2] / "docs/examples/howto/module", example)
    base = tmp_path / "base"
    argv = [sys.executable, "-m", "pytest", "--hil-target=qemu", "--hil-accel=tcg"]
    argv += [f"--hil-kernel={built.kernel}", "--hil-boot-timeout=600", f"--basetemp={base}"]
    argv += ["-o", f"hil_cov_map={base}/ring0={example}", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [*argv, "--hil-cov=.", "--hil-cov-report=json:coverage.json", str(example)],
        cwd=example,
        env={**os.environ, "HIL_RING_BUG": "1", "KDIR": str(built.modules), "COLUMNS": "200"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=900,
    )
    said = done.stdout
    assert done.returncode == 1, said + done.stderr
    assert "1 failed, 1 passed" in said
    assert re.search(r"^FAILED .*once - crash: general protection fault in ring_read", said, re.M)
    source = (example / "ring.c").read_text().splitlines()
    bug = next(number for number, text in enumerate(source, 1) if "the bug:" in text)
    assert re.search(rf"RIP: 0010:ring_read\+\S+ \[ring\] \(\S*/ring\.c:{bug}\)", said)
    # The kernel's own lines are those of the vmlinux beside it.
    assert re.search(r"vfs_read\+\S+ \(\S*fs/read_write\.c:\d+\)", said)
    (file,) = json.loads((example / "coverage.json").read_text())["files"]
    counts = file["lines"]
    freed = next(n for n, text in enumerate(source, 1) if n > bug and "kfree(message)" in text)
    entered = max(n for n, text in enumerate(source, 1) if n < bug and "mutex_lock(" in text)
    # One read in the first test, two in the other, of which the second did not come to its end.
    assert (counts[str(entered)], counts[str(freed)]) == (3, 2)
