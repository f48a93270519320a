"""What a test says of the kernel that it wants, and what ``hil.kernel`` says of the one it has."""

from __future__ import annotations

from typing import Any

import pytest

QEMU = "--hil-target=qemu"


@pytest.mark.machine
def test_a_test_runs_on_the_kernels_that_it_is_for(inner: Any) -> None:
    inner.write(
        """
import pytest

def test_it(hil):
    kernel = hil.kernel
    assert kernel.version >= "5.10"
    assert kernel.release == hil.run("uname -r").stdout.strip()
    assert kernel.config["PCI"] == "y"
    assert "KASAN" not in kernel.config
    assert "modules" in kernel.features
    hil.run("echo 64 > /proc/sys/kernel/tainted")  # user space asked for it
    assert "U" in kernel.taint

@pytest.mark.hil(kernel=">=99")
def test_version(hil): pass

@pytest.mark.hil(kernel_config=["KASAN"])
def test_config(hil): pass

@pytest.mark.hil(kernel=">=5, <99", kernel_config="MODULES")
def test_both(hil): pass
"""
    )
    assert inner.run(QEMU, "-rs") == 0, inner.text
    assert "2 passed, 2 skipped" in inner.text
    assert "the target qemu: the test needs a kernel >=99, this is " in inner.text
    assert "needs a kernel with CONFIG_KASAN=y, this one has n" in inner.text


@pytest.mark.parametrize(
    ("marker", "said"),
    [
        ('kernel=">=six"', "kernel: '>=six' is no condition for a version, such as '>=6.1'"),
        ('kernel_config=["KASAN INLINE"]', "kernel_config: 'KASAN INLINE' is no name"),
    ],
)
def test_what_cannot_be_meant_is_said(inner: Any, marker: str, said: str) -> None:
    inner.write(f"import pytest\n@pytest.mark.hil({marker})\ndef test_it(hil): pass")
    assert inner.run(QEMU, "--collect-only") != 0
    assert said in inner.text
