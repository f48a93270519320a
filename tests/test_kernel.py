"""A kernel's version, configuration and taint, from what real ones say of themselves."""

from __future__ import annotations

import pytest

from pytest_hil import kernel
from pytest_hil.errors import Unsupported
from pytest_hil.kernel import Kernel, KernelConfig, Requirement, Taint, Version

CONFIG = """
CONFIG_CC_VERSION_TEXT="gcc-12 (Debian 12.2.0-14) 12.2.0"
CONFIG_HZ=250
CONFIG_MODULES=y
CONFIG_EXT4_FS=m
# CONFIG_KASAN is not set
CONFIG_CMDLINE=""
CONFIG_UBSAN=y
"""


def one(release: str = "6.1.0-37-amd64", config: str | None = CONFIG, taint: int = 0) -> Kernel:
    said = {"uname -r": f"{release}\n", "cat /proc/sys/kernel/tainted": f"{taint}\n"}
    return Kernel("qemu", lambda command: said.get(command, ""), config=config)


def test_versions() -> None:
    assert Version.of("6.1.0-37-amd64") == "6.1"
    assert Version.of("6.10.2") > "6.9" > Version.of("6.1.119+rpt-rpi-v8")
    assert str(Version.of("5.15.0-rc1")) == "5.15.0"
    assert {Version.of("6.1"), Version.of("6.1.0")} == {Version.of("6.1.0.0")}
    assert Version.of("6.1") != 6.1
    with pytest.raises(ValueError, match="no kernel's version"):
        Version.of("linux")


def test_configuration() -> None:
    config = KernelConfig(CONFIG)
    assert config["MODULES"] == config["CONFIG_MODULES"] == "y"
    assert (config["EXT4_FS"], config["HZ"]) == ("m", "250")
    assert (config["KASAN"], config["NO_SUCH_THING"], config["CMDLINE"]) == ("n", "n", "")
    assert config["CC_VERSION_TEXT"].startswith("gcc-12")
    assert "EXT4_FS" in config
    assert "KASAN" not in config
    assert one().features == {"modules", "ubsan"}


def test_a_kernel_that_does_not_tell() -> None:
    with pytest.raises(Unsupported, match="CONFIG_IKCONFIG_PROC"):
        _ = one(config=None).config


def test_taint() -> None:
    taint = Taint(1 << 9 | 1 << 12 | 1 << 7)
    assert taint.letters == "DWO"
    assert "W" in taint
    assert "P" not in taint
    assert "there was a warning" in taint.meanings
    assert one(taint=512).taint
    assert not one().taint


@pytest.mark.parametrize(
    ("wanted", "release", "meets"),
    [
        (">=6.1", "6.1.0-37-amd64", True),
        (">=6.1", "5.15.0", False),
        (">6.1", "6.1.119", False),
        ("<=6.1", "6.1.119", True),
        ("<6.1.5", "6.1.4", True),
        ("==6.1", "6.1.119", True),
        ("!=6.1", "6.1.119", False),
        (">=5.10, <6.0", "5.15.3", True),
        (">=5.10,<6.0", "6.1.3", False),
    ],
)
def test_wanted_versions(wanted: str, release: str, meets: bool) -> None:
    assert kernel.is_requirement(wanted)
    unmet = Requirement(kernel.versions(wanted)).unmet(one(release))
    assert (unmet == "") is meets
    assert meets or f"this is {release}" in unmet


def test_wanted_configuration() -> None:
    assert Requirement(config=("MODULES", "EXT4_FS", "HZ=250")).unmet(one()) == ""
    assert (
        Requirement(config=("CONFIG_KASAN",)).unmet(one())
        == "needs a kernel with CONFIG_KASAN=y, this one has n"
    )
    assert "CONFIG_HZ=1000, this one has 250" in Requirement(config=("HZ=1000",)).unmet(one())


@pytest.mark.parametrize("wrong", ["6.1", ">=", ">=six", ">=6.1 <7", ">=6.1,"])
def test_conditions_that_are_none(wrong: str) -> None:
    with pytest.raises(ValueError, match="no condition for a version"):
        kernel.versions(wrong)


def test_paths_are_no_conditions() -> None:
    assert not kernel.is_requirement("build/bzImage")
    with pytest.raises(ValueError, match="is no name"):
        kernel.names(["KASAN INLINE"])
