"""Kernels that find bugs, built from the distribution's source and booted: they find them.

What is provoked is lkdtm's, the kernel's own module for that (drivers/misc/lkdtm).
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from pytest_hil.bench import Bench, Settings
from pytest_hil.cache import Cache
from pytest_hil.crash import Crash
from pytest_hil.qemu.guest import Guest
from pytest_hil.qemu.kernel_build.build import Built, build
from pytest_hil.qemu.kernel_build.fragments import parse
from pytest_hil.qemu.kernel_build.source import of_distribution

pytestmark = pytest.mark.kernels

FEATURES = parse("gcov,kasan,lockdep,ubsan,lkdtm")


def instrumented() -> Built:
    cache = Cache.default()
    source = of_distribution(cache, arch="x86_64", progress=print)
    return build(source, FEATURES, arch="x86_64", cache=cache, progress=print)


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    settings = Settings(
        root=tmp_path_factory.mktemp("bench"),
        kernel=instrumented().kernel,
        accel="tcg",
        boot_timeout=600,
    )
    with Bench(settings) as made:
        yield made


@pytest.fixture
def guest(bench: Bench) -> Iterator[Guest]:
    made = bench.open(bench.target("qemu"))
    yield made
    made.close()


def provoked(guest: Guest, what: str, title: str) -> Crash:
    with guest.crashes(title, timeout=120) as expected:
        # The shell dies of some: nobody waits for it.
        guest.run(f"echo {what} > /sys/kernel/debug/provoke-crash/DIRECT || :", timeout=120)
    return expected.crashes[0]


def test_it_says_what_it_is(guest: Guest) -> None:
    kernel = guest.kernel
    assert kernel.config["KASAN"] == "y"
    assert kernel.config["VIRTIO_CONSOLE"] == "y"
    assert {"kasan", "lockdep", "ubsan"} <= kernel.features
    assert kernel.version == instrumented().version
    assert not kernel.taint


def test_the_machine_s_devices_are_built_in(guest: Guest) -> None:
    assert "eth0" in guest.run("ls /sys/class/net").stdout
    assert "virtio_rng" in guest.run("cat /sys/class/misc/hw_random/rng_available").stdout
    assert guest.run("ls -d /sys/devices/platform/vhci_hcd.0").ok
    said = guest.run("cat /proc/filesystems").stdout.split()
    assert {"ext4", "9p", "vfat", "devtmpfs"} <= set(said)


@pytest.mark.parametrize(
    ("what", "kind", "title"),
    [
        # Since 6.3 it says "slab-use-after-free".
        (
            "WRITE_AFTER_FREE",
            "kasan",
            r"KASAN: (slab-)?use-after-free write in lkdtm_WRITE_AFTER_\w+",
        ),
        ("ARRAY_BOUNDS", "ubsan", r"UBSAN: array-index-out-of-bounds in lkdtm_ARRAY_BOUNDS"),
    ],
)
def test_a_bug_is_found_by_its_title(guest: Guest, what: str, kind: str, title: str) -> None:
    crash = provoked(guest, what, "")
    assert crash.kind == kind
    assert re.fullmatch(title, crash.title)
    assert not crash.corrupted


def test_the_second_call_only_looks() -> None:
    said: list[str] = []
    cache = Cache.default()
    source = of_distribution(cache, arch="x86_64", progress=said.append)
    first = instrumented()
    assert build(source, FEATURES, arch="x86_64", cache=cache, progress=said.append) == first
    assert said == []
    assert first.kernel.stat().st_size > 10_000_000
