"""What differs between the distributions whose packages a guest is made of."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from pytest_hil.errors import ImageError

_DEBIAN_ARCH = {"x86_64": "amd64", "aarch64": "arm64", "arm": "armhf", "riscv64": "riscv64"}


@dataclass(frozen=True, slots=True)
class Distribution:
    """``kernels``: the meta package of the kernel, by Debian's names of architectures.

    ``kernel_parts``: which of the packages that it depends on hold kernel and modules.
    ``tools``: packages of the guest's own programs; ``programs``: from which file in them each
    program of the guest comes (a regular expression). ``release`` and ``codename`` are the host's,
    such as "12" and "bookworm". ``sources_list``: a sources.list to use instead of the host's own
    ("": the host's).
    """

    name: str
    kernels: Mapping[str, str]
    kernel_parts: re.Pattern[str]
    tools: tuple[str, ...]
    programs: Mapping[str, str]
    release: str = ""
    codename: str = ""
    sources_list: str = ""

    def kernel(self, arch: str) -> str:
        """The package that depends on the newest kernel."""
        return self.kernels[arch]


# klibc's shell and not busybox-static's: that one runs its own applets before it looks at PATH, so
# a program that a test brings along would silently not run. It also starts in 2 ms instead of 3.
_SHELL = {"bin/sh": r"usr/lib/klibc/bin/sh"}

DEBIAN = Distribution(
    name="debian",
    kernels={
        "amd64": "linux-image-amd64",
        "arm64": "linux-image-arm64",
        "armhf": "linux-image-armmp",
        "riscv64": "linux-image-riscv64",
    },
    kernel_parts=re.compile(r"linux-(image|modules)-\d.*"),
    tools=("busybox-static", "klibc-utils", "usbip", "usb.ids"),
    programs={
        **_SHELL,
        "usr/sbin/usbip": r"usr/sbin/usbip",
        "usr/sbin/usbipd": r"usr/sbin/usbipd",
    },
)

UBUNTU = Distribution(
    name="ubuntu",
    kernels=dict.fromkeys(_DEBIAN_ARCH.values(), "linux-image-generic"),
    kernel_parts=re.compile(r"linux-(image|modules|modules-extra)-\d.*"),
    # usbip is in linux-tools-VERSION, which linux-tools-generic leads to; what is in PATH there
    # is a script that looks for the running kernel's.
    tools=("busybox-static", "klibc-utils", "linux-tools-generic", "hwdata"),
    programs={
        **_SHELL,
        "usr/sbin/usbip": r"usr/lib/linux-tools-[^/]*/usbip",
        "usr/sbin/usbipd": r"usr/lib/linux-tools-[^/]*/usbipd",
    },
)


def host_distribution(os_release: Path = Path("/etc/os-release")) -> Distribution:
    """The distribution whose packages the host's apt has.

    Raises ImageError on a host whose packages we know nothing about.
    """
    fields = _os_release(os_release)
    # Ubuntu says ID_LIKE=debian, and Mint says ID_LIKE="ubuntu debian": the nearest comes first.
    for name in (fields.get("ID", ""), *fields.get("ID_LIKE", "").split()):
        for known in (UBUNTU, DEBIAN):
            if name == known.name:
                codename = fields.get("UBUNTU_CODENAME") or fields.get("VERSION_CODENAME", "")
                return replace(known, release=fields.get("VERSION_ID", ""), codename=codename)
    raise ImageError(
        f"this host is {fields.get('PRETTY_NAME', 'of an unknown kind')}: a guest image can be "
        "built only from the packages of Debian or Ubuntu",
        mend="give your own kernel and initrd, or an image by URL: see `files` and `url` in "
        "boards.toml's [image.NAME]",
    )


def debian_arch(arch: str) -> str:
    """Debian's name of an architecture (``x86_64`` is ``amd64``)."""
    try:
        return _DEBIAN_ARCH[arch]
    except KeyError:
        raise ImageError(
            f"there is no Debian image for the architecture {arch!r}",
            mend=f"known: {', '.join(_DEBIAN_ARCH)}; for others give your own kernel and initrd",
        ) from None


def _os_release(path: Path) -> dict[str, str]:
    """The fields of os-release(5), without quotes; none if there is no such file."""
    if not path.is_file():
        return {}
    pairs = (line.partition("=") for line in path.read_text().splitlines() if "=" in line)
    return {key.strip(): value.strip().strip("\"'") for key, _, value in pairs}
