"""What consoles say when all is well: boots, services, packages, compilers, tests, stress.

Made from a seed, so that it is the same each time; words that reports have too are in it.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path

_BOOT = Path(__file__).parent / "corpus" / "guest" / "boot.log"

_SAID = """panic warning bug oops fault trap stall lockup leak kernel memory driver queue thread irq
    page table device bus clock reset watchdog buffer frame cache node zone slab list lock rcu"""
_WORDS = _SAID.split()
_PROGRAMS = ("systemd", "sshd", "kernel-test", "cron", "udevd", "dockerd", "chronyd", "stress-ng")
_FILES = ("mm/slub.c", "kernel/panic.c", "lib/ubsan.c", "mm/kasan/report.c", "fs/ext4/inode.c")


def ordinary(size: int, seed: int) -> Iterator[bytes]:
    """Pieces of about 64 KiB, ``size`` bytes together."""
    pick = random.Random(seed)
    boot = _BOOT.read_bytes()
    makers: tuple[Callable[[random.Random], list[str]], ...] = (
        *(_kernel, _kernel, _services, _packages, _compiler, _tests, _stress, _prose),
    )
    made = 0
    while made < size:
        part = boot if pick.random() < 0.1 else b""
        while len(part) < 65536:
            part += "\r\n".join([*pick.choice(makers)(pick), ""]).encode()
        yield part[: size - made]
        made += len(part)


def _kernel(pick: random.Random) -> list[str]:
    now = pick.uniform(0, 90_000)
    caller = pick.choice(("", "", f"[{'T' + str(pick.randrange(9999)):>6}]"))
    lines = []
    for _ in range(200):
        now += pick.expovariate(30)
        a, b = pick.randrange(65536), pick.randrange(16)
        text = pick.choice(
            (
                f"usb {b}-1: New USB device found, idVendor={a:04x}, idProduct={a ^ 77:04x}",
                f"pci 0000:00:{b:02x}.0: BAR 0: assigned [mem 0x{a:04x}0000-0x{a:04x}ffff 64bit]",
                f'audit: type=1400 audit({now:.3f}:{a}): apparmor="STATUS" operation="profile"',
                f"EXT4-fs (sda{b}): mounted filesystem with ordered data mode. Quota mode: none.",
                f"x86/split lock detection: #AC: prog/{a} took a split_lock trap at: 0x{a:x}",
                f"rcu: RCU restricting CPUs from NR_CPUS={a} to nr_cpu_ids={b}.",
                f"perf: interrupt took too long ({a} > 2500), lowering its rate to {b}",
                f"sched: DL replenish lagged too much by {a}",
                f"NMI watchdog: Enabled. Permanently consumes one hw-PMU counter ({b}).",
                f"watchdog: Delayed init of the lockup detector failed: -{b}",
                f"{pick.choice(_WORDS)}{b}: {pick.choice(_WORDS)} {pick.choice(_WORDS)} {a}",
                f"Kernel command line: panic={b} oops=panic slub_debug={pick.choice(_WORDS)}",
                f"hrtimer: interrupt took {a} ns",
                f"clocksource: Long readout interval, skipping watchdog check: cs_nsec: {a}",
                f"oom_kill_allocating_task {b}, {pick.choice(_WORDS)} invoked {a} times",
                f"{pick.choice(_PROGRAMS)}[{a}]: BUG: {pick.choice(_WORDS)} WARNING: {b}",
            )
        )
        lines.append(f"[{now:12.6f}]{caller} {text}")
    return lines


def _services(pick: random.Random) -> list[str]:
    words = [pick.choice(_WORDS) for _ in range(100)]
    return [
        pick.choice(
            (
                f"[\x1b[0;32m  OK  \x1b[0m] Started \x1b[0;1;39m{word}.service\x1b[0m - {word}.",
                f"[\x1b[0;1;31mFAILED\x1b[0m] Failed to start \x1b[0;1;39m{word}.service\x1b[0m.",
                f"Nov 21 15:{pick.randrange(60):02d}:01 board {pick.choice(_PROGRAMS)}[77]: {word}",
                f"Nov 21 15:{pick.randrange(60):02d}:02 board kernel: {word}: link becomes ready",
                f"2026-11-21T15:00:{pick.randrange(60):02d}.123456+00:00 board sshd[1]: {word}",
                f"board login: root ({word})",
            )
        )
        for word in words
    ]


def _packages(pick: random.Random) -> list[str]:
    return [
        pick.choice(
            (
                f"Get:{pick.randrange(900)} http://mirror.test/debian bookworm/main lib{word}",
                f"Selecting previously unselected package lib{word}{pick.randrange(9)}:amd64.",
                f"Preparing to unpack .../{pick.randrange(999)}-{word}_1.2.3-4_amd64.deb ...",
                f"Setting up {word} (2.36-9+deb12u{pick.randrange(9)}) ...",
                f"WARNING: The {word} is not up to date",
                f"(Reading database ... {pick.randrange(99999)} files and directories installed.)",
                f"\rProgress: [{pick.randrange(100):3d}%] [###############............] ",
            )
        )
        for word in (pick.choice(_WORDS) for _ in range(100))
    ]


def _compiler(pick: random.Random) -> list[str]:
    return [
        pick.choice(
            (
                f"  CC      {path.removesuffix('.c')}.o",
                f"{path}:{pick.randrange(999)}:9: warning: unused variable '{word}' [-Wunused]",
                f"{path}: In function '{word}_{pick.choice(_WORDS)}':",
                f"gcc -O2 -Wall -DCONFIG_{word.upper()}=1 -c -o {word}.o {path}",
                f"make[{pick.randrange(4)}]: Entering directory '/usr/src/linux/{word}'",
                f"WARNING: modpost: missing MODULE_DESCRIPTION() in lib/{word}.o",
                f"  BUG     {word}",
            )
        )
        for path, word in ((pick.choice(_FILES), pick.choice(_WORDS)) for _ in range(100))
    ]


def _tests(pick: random.Random) -> list[str]:
    return [
        pick.choice(
            (
                f"ok {pick.randrange(999)} - {word}_{pick.choice(_WORDS)} # SKIP",
                f"    # {word}: EXPECTATION at {pick.choice(_FILES)}:{pick.randrange(999)}",
                f"test_{word}.py::test_{pick.choice(_WORDS)} PASSED [{pick.randrange(100):3d}%]",
                "=" * 70,
                "-" * 77,
                f"E       AssertionError: BUG: {word} != Kernel panic",
                f"INFO: {word} {pick.randrange(99)} of {pick.randrange(99)}",
                f"WARNING: {word}: {pick.choice(_WORDS)} at {pick.choice(_FILES)}:12",
                f"BUG: {word} {pick.choice(_WORDS)} in {pick.choice(_WORDS)}",
                f"Oops: {word}",
                f"{word}[{pick.randrange(9999)}]: segfault handler installed",
            )
        )
        for word in (pick.choice(_WORDS) for _ in range(100))
    ]


def _stress(pick: random.Random) -> list[str]:
    return [
        f"stress-ng: {kind} [{pick.randrange(9999)}] {word:13} {pick.randrange(999999):9d} "
        f"{pick.uniform(0, 60):9.2f} {pick.uniform(0, 60):9.2f} {pick.uniform(0, 60000):14.2f}"
        for kind, word in (
            (pick.choice(("info: ", "metrc:", "warn: ")), pick.choice(_WORDS)) for _ in range(100)
        )
    ]


def _prose(pick: random.Random) -> list[str]:
    return [
        " ".join(pick.choice(_WORDS) for _ in range(pick.randrange(1, 14))).capitalize() + "."
        for _ in range(60)
    ]
