"""A guest's kernel and its modules: out of packages, or the user's own."""

from __future__ import annotations

import re
import stat
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pytest_hil.config import DebianImage
from pytest_hil.errors import ImageError
from pytest_hil.progress import Progress
from pytest_hil.qemu.image import deb, kernel
from pytest_hil.qemu.image.modules import Module, ModuleTree, find_version

AT_BOOT = (
    # The machine's own devices.
    "virtio_pci", "virtio_mmio", "virtio_console", "virtio_blk", "virtio_net", "virtio_rng",
    "pvpanic_pci", "pvpanic_mmio", "vmgenid",
    # USB over IP, and what a test plugs in through it.
    "vhci_hcd", "hid_generic", "usbhid", "evdev", "usb_storage", "uas", "sd_mod", "cdc_acm",
)  # fmt: skip
"""Loaded at boot, where the kernel has them as modules."""

ON_DEMAND = (
    # The other side of USB/IP, gadgets, and a real controller behind -device qemu-xhci.
    "usbip_host", "usbip_vudc", "dummy_hcd", "g_zero", "usbmon", "usbtest",
    "xhci_pci", "ehci_pci", "uhci_hcd",
    "ftdi_sio", "cp210x", "pl2303", "ch341", "cdc_ether", "cdc_ncm",
    # Disks and file systems; ext4 asks for crc32c by a name that only depmod would know.
    "ext4", "crc32c_generic", "vfat", "nls_cp437", "nls_iso8859_1", "nls_ascii", "nls_utf8",
    "loop", "overlay", "9p", "9pnet_virtio",
)  # fmt: skip
"""In the image for modprobe and mount."""


@dataclass(frozen=True, slots=True)
class Linux:
    """``modules`` are in the image, each behind what it needs; the first ``at_boot`` of them load
    at boot. ``builtin`` is modules.builtin's text, ``config`` the kernel's .config.
    """

    kernel: bytes
    version: str
    modules: tuple[Module, ...] = ()
    at_boot: int = 0
    builtin: bytes = b""
    config: bytes = b""


def from_packages(
    packages: Sequence[Path], spec: DebianImage, *, arch: str, work: Path, progress: Progress
) -> Linux:
    """The distribution's kernel. ``work`` is a directory to unpack in."""
    progress("unpacking the kernel and its modules")
    kernels: dict[str, bytes] = {}
    config = b""
    for package in packages:
        for path, entry in deb.members(package, wanted=_is_of_kernel):
            if not stat.S_ISREG(entry.mode):
                continue
            if path.startswith("boot/config-"):
                config = entry.data
                continue
            if path.startswith("boot/"):
                kernels[Path(path).name] = entry.data
                continue
            place = work / path.removeprefix("usr/")
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(entry.data)
    if len(kernels) != 1:
        raise ImageError(f"the kernel's packages hold {len(kernels)} kernels, not one")
    ((name, data),) = kernels.items()
    made = replace(kernel.prepare(data, name=name, arch=arch), config=config)
    return _with_modules(made, ModuleTree(find_version(work)), spec, progress)


def from_user(spec: DebianImage, *, arch: str, progress: Progress) -> Linux:
    """The user's kernel, with the modules from the user's directory if there is one."""
    assert spec.kernel is not None
    try:
        data = spec.kernel.read_bytes()
    except OSError as error:
        raise ImageError(f"the kernel {spec.kernel} cannot be read: {error.strerror}") from error
    made = kernel.prepare(data, name=str(spec.kernel), arch=arch)
    if made.note:
        progress(made.note)
    if spec.kernel_modules is None:
        if spec.modules:
            raise ImageError(
                f"[image.{spec.name}] modules: there are none for the kernel {spec.kernel}",
                mend="give their directory as kernel_modules, or build them in",
            )
        return Linux(made.data, made.version, config=made.config)
    tree = ModuleTree(find_version(spec.kernel_modules))
    if made.version and tree.version != made.version:
        raise ImageError(
            f"the modules in {tree.root} are for another kernel than {spec.kernel}, which is "
            f"{made.version}",
            mend="run `make modules_install INSTALL_MOD_PATH=DIR` after each build",
        )
    return _with_modules(made, tree, spec, progress)


def _with_modules(
    made: kernel.Kernel, tree: ModuleTree, spec: DebianImage, progress: Progress
) -> Linux:
    tree.require(spec.modules, where=f"[image.{spec.name}] modules")
    wanted = [*AT_BOOT, *spec.modules]
    nowhere = [name for name in AT_BOOT if not tree.known(name)]
    if nowhere:
        progress(f"the kernel {tree.version} has no {', '.join(nowhere)}")
    builtin = tree.root / "modules.builtin"
    return Linux(
        kernel=made.data,
        version=tree.version,
        modules=tuple(tree.closure([*wanted, *ON_DEMAND])),
        at_boot=len(tree.closure(wanted)),
        builtin=builtin.read_bytes() if builtin.is_file() else b"",
        config=made.config,
    )


def _is_of_kernel(path: str) -> bool:
    return bool(
        re.fullmatch(
            r"boot/(vmlinu[xz]|config)-.*|(usr/)?lib/modules/.*(\.ko(\.\w+)?|builtin)", path
        )
    )
