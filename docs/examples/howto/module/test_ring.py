"""A kernel module's tests: `pytest --hil-target=qemu test_ring.py`.

The module has a bug. `HIL_RING_BUG=1` lets the test that finds it fail, as it would with yours.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from pathlib import Path

import pytest

from pytest_hil import Target

HERE = Path(__file__).parent


@pytest.fixture(scope="session")
def built() -> dict[str, Path]:
    """The module, for each kernel that it was built for."""
    return {}


@pytest.fixture
def ring(hil: Target, built: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Target:
    """A target with the module loaded, built for the kernel that runs there."""
    release = hil.run("uname -r").stdout.strip()
    headers = Path(os.environ.get("KDIR") or f"/lib/modules/{release}/build")
    if not shutil.which("make") or not (headers / "Makefile").exists():
        pytest.skip(f"no headers of the target's kernel: apt-get install linux-headers-{release}")
    if hil.arch != platform.machine():
        pytest.skip(f"the target is {hil.arch}: give make ARCH= and CROSS_COMPILE=")
    if release not in built:
        sources = tmp_path_factory.mktemp("ring")
        shutil.copytree(HERE, sources, dirs_exist_ok=True)
        make = ["make", "-C", str(sources), f"KDIR={headers}", "modules"]
        subprocess.run(make, check=True, timeout=300)
        built[release] = sources / "ring.ko"
    hil.put(built[release], "/tmp/ring.ko")
    hil.run("insmod /tmp/ring.ko")
    return hil


def test_gives_back_what_was_written(ring: Target) -> None:
    assert ring.run("echo hello > /dev/ring; head -c 6 /dev/ring").stdout == "hello\n"


@pytest.mark.xfail("HIL_RING_BUG" not in os.environ, reason="reads a message that is not there")
def test_gives_it_back_once(ring: Target) -> None:
    ring.run("echo hello > /dev/ring; head -c 6 /dev/ring")
    assert ring.run("head -c 6 /dev/ring").stdout == ""
