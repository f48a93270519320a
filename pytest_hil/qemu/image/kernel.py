"""Kernels as QEMU starts them fastest.

x86: a bzImage decompresses itself inside the machine, which costs seconds under emulation. Its
payload is an ELF ``vmlinux``; QEMU starts that directly when it has the PVH entry note
(Documentation/arch/x86/boot.rst; include/xen/interface/elfnote.h). Not with KASAN and its kind:
what is called there (arch/x86/platform/pvh/enlighten.c) is instrumented, there is no shadow memory
yet, and so the machine resets for ever. arm64 and riscv64: a gzipped
``Image`` is unpacked, as QEMU's loaders are slower at it or do not do it.
"""

from __future__ import annotations

import bz2
import lzma
import re
import struct
import zlib
from dataclasses import dataclass

from pytest_hil import process
from pytest_hil.errors import ImageError, ToolMissing

_ELF = b"\x7fELF"
_CONFIG_BEGINS = b"IKCFG_ST"
_ARM_ZIMAGE = b"\x18\x28\x6f\x01"  # Documentation/arch/arm/booting.rst
_EHDR = struct.Struct("<16sHHIQQQIHHHHHH")
_PHDR = struct.Struct("<IIQQQQQQ")  # type, flags, offset, vaddr, paddr, filesz, memsz, align
_PT_LOAD = 1
_PT_NOTE = 4
_XEN_ELFNOTE_PHYS32_ENTRY = 18
_SANITIZER = re.compile(rb"BUG: (KASAN|KCSAN|KMSAN): ")
_LIMIT = 1 << 30
"""No kernel is as large as this, in bytes; a damaged one must not fill the memory."""


_ELF_MACHINES = {62: "x86_64", 183: "aarch64", 40: "arm", 243: "riscv64"}
_IMAGE_MAGICS = {b"ARM\x64": "aarch64", b"RSC\x05": "riscv64"}
"""At offset 56 (Documentation/arch/arm64/booting.rst, arch/riscv/boot-image-header.rst)."""


@dataclass(frozen=True, slots=True)
class Kernel:
    """What QEMU gets. ``version``: its release ("" unknown); ``note``: what was not possible;
    ``config``: its .config, where it carries that.
    """

    data: bytes
    version: str = ""
    note: str = ""
    config: bytes = b""


def prepare(data: bytes, *, name: str, arch: str) -> Kernel:
    """The form of a kernel that boots fastest. ``name`` is for messages.

    Raises ImageError when it is no kernel, is damaged, or is another architecture's.
    """
    if data[:2] == b"\x1f\x8b" or data[4:8] == b"zimg":
        return prepare(_unwrap(data, name=name), name=name, arch=arch)
    _check_arch(data, name=name, arch=arch)
    if data[:4] == _ELF:
        if arch == "x86_64" and not has_pvh_entry(data):
            raise ImageError(
                f"{name}: an x86-64 ELF kernel without the PVH entry note; QEMU cannot start it",
                mend="build it with CONFIG_PVH=y, or give the bzImage instead",
            )
        if arch == "x86_64" and (sanitizer := _sanitizer(data)):
            raise ImageError(
                f"{name}: an x86-64 ELF kernel with {sanitizer}, which dies where QEMU enters it",
                mend="give the bzImage instead (arch/x86/boot/bzImage)",
            )
        return Kernel(strip(data), _version(data), config=embedded_config(data))
    if data[0x202:0x206] == b"HdrS":
        vmlinux = unpack_bzimage(data, name=name)
        sanitizer = _sanitizer(vmlinux)
        if has_pvh_entry(vmlinux) and not sanitizer:
            return Kernel(strip(vmlinux), _version(vmlinux), config=embedded_config(vmlinux))
        why = f"has {sanitizer}" if sanitizer else "has no PVH entry (CONFIG_PVH)"
        note = f"{name} {why}: it boots as a bzImage, some seconds slower"
        return Kernel(data, _version(vmlinux), note, embedded_config(vmlinux))
    return Kernel(data, _version(data), config=embedded_config(data))


def _check_arch(data: bytes, *, name: str, arch: str) -> None:
    if len(data) < 1024:
        raise ImageError(f"{name}: {len(data)} bytes are no kernel")
    found = "an unknown architecture"
    if data[:4] == _ELF:
        found = _ELF_MACHINES.get(struct.unpack_from("<H", data, 18)[0], found)
    elif data[0x202:0x206] == b"HdrS":
        found = "x86_64"
    elif data[56:60] in _IMAGE_MAGICS:
        found = _IMAGE_MAGICS[data[56:60]]
    elif data[36:40] == _ARM_ZIMAGE:
        found = "arm"
    if found != arch:
        raise ImageError(
            f"{name}: not a kernel for {arch} but for {found}",
            mend="known: bzImage, vmlinux (ELF), Image and zImage; is the target's arch right?",
        )


def _unwrap(data: bytes, *, name: str) -> bytes:
    """The Image in an Image.gz or in an EFI zboot image (drivers/firmware/efi/libstub)."""
    if data[4:8] == b"zimg":
        offset, size = struct.unpack_from("<II", data, 8)
        data = data[offset : offset + size]
    inner = decompress(data, name=name)
    if inner[:2] == b"\x1f\x8b" or inner[4:8] == b"zimg":
        raise ImageError(f"{name}: compressed more than once")
    return inner


def embedded_config(data: bytes) -> bytes:
    """The .config that an unpacked kernel carries with CONFIG_IKCONFIG (kernel/configs.c); empty
    where it has none.
    """
    start = data.find(_CONFIG_BEGINS)
    if start < 0:
        return b""
    try:
        return zlib.decompressobj(wbits=31).decompress(data[start + len(_CONFIG_BEGINS) :], _LIMIT)
    except zlib.error:
        return b""


def _version(data: bytes) -> str:
    """The release in the kernel's banner, such as ``6.1.0-37-amd64``."""
    found = re.search(rb"Linux version ([0-9][!-~]*) \(", data)
    return found[1].decode() if found else ""


def unpack_bzimage(data: bytes, *, name: str) -> bytes:
    """The ELF ``vmlinux`` in a bzImage, found by the boot protocol's header (2.08 or later)."""
    (version,) = struct.unpack_from("<H", data, 0x206)
    if version < 0x0208:
        raise ImageError(f"{name}: boot protocol {version:#x} is older than 2.08 (Linux 2.6.26)")
    setup_sectors = data[0x1F1] or 4
    offset, length = struct.unpack_from("<II", data, 0x248)
    start = (setup_sectors + 1) * 512 + offset
    payload = data[start : start + length]
    if len(payload) < max(length, 8):
        raise ImageError(
            f"{name}: cut short: it has {len(data)} bytes, its payload ends at {start + length}"
        )
    vmlinux = decompress(payload, name=name)
    if vmlinux[:4] != _ELF:
        raise ImageError(f"{name}: its payload is no ELF file")
    return vmlinux


def decompress(data: bytes, *, name: str) -> bytes:
    """Unpack by the leading magic.

    What follows the compressed stream (its size, padding) is ignored.
    """
    try:
        if data[:2] == b"\x1f\x8b":
            return zlib.decompressobj(wbits=31).decompress(data, _LIMIT)
        if data[:6] == b"\xfd7zXZ\0":
            return lzma.LZMADecompressor(lzma.FORMAT_XZ).decompress(data, _LIMIT)
        if data[:3] == b"\x5d\0\0":
            return lzma.LZMADecompressor(lzma.FORMAT_ALONE).decompress(data, _LIMIT)
        if data[:3] == b"BZh":
            return bz2.BZ2Decompressor().decompress(data, _LIMIT)
        if data[:4] == b"\x28\xb5\x2f\xfd":
            return _zstd(data)
    except (zlib.error, lzma.LZMAError, OSError, EOFError) as error:
        raise ImageError(f"{name}: damaged: {error}") from error
    if data[:4] == b"\x02\x21\x4c\x18":
        return _with_tool(["lz4", "-dc"], data, package="lz4", name=name)
    if data[:4] == b"\x89LZO":
        return _with_tool(["lzop", "-dc"], data, package="lzop", name=name)
    raise ImageError(f"{name}: compressed in a way that is not known (begins {data[:6].hex()})")


def _zstd(data: bytes) -> bytes:
    import zstandard

    try:
        return zstandard.ZstdDecompressor().decompressobj().decompress(data)
    except zstandard.ZstdError as error:
        raise OSError(str(error)) from error


def _with_tool(argv: list[str], data: bytes, *, package: str, name: str) -> bytes:
    """lz4 and lzo are in no library of ours: the host's own tools do them.

    Both warn of the four bytes of size that the kernel's build appends, so the exit code
    says nothing; an empty answer does.
    """
    try:
        out = process.run(argv, input=data, check=False).stdout
    except ToolMissing as missing:
        raise ImageError(
            f"{name} is compressed with {package}, and there is no {missing.tool} to unpack it",
            mend=f"apt-get install {package}, or give the unpacked vmlinux",
        ) from missing
    if not out:
        raise ImageError(f"{name}: damaged: {argv[0]} unpacks nothing from it")
    return out


def strip(data: bytes) -> bytes:
    """An ELF kernel without what no loader needs, which QEMU would read at each start.

    Debug information and tables of sections lie behind the last segment; segments end with
    zeros (25 MB of them in Debian's kernel) that a loader makes by itself.
    """
    head = bytearray(data[: _EHDR.size])
    struct.pack_into("<Q", head, 40, 0)  # e_shoff: there is no section table any more
    struct.pack_into("<HHH", head, 58, 64, 0, 0)  # e_shentsize, e_shnum, e_shstrndx
    out = bytearray(head + data[_EHDR.size :])
    end = _EHDR.size
    for at in _program_headers(data):
        end = max(end, at + _PHDR.size)
        kind, _flags, offset, _va, _pa, size, _memory, _align = _PHDR.unpack_from(data, at)
        if kind == _PT_LOAD:
            size = len(data[offset : offset + size].rstrip(b"\0"))
            struct.pack_into("<Q", out, at + 32, size)
        end = max(end, offset + size)
    return bytes(out[:end])


def has_pvh_entry(data: bytes) -> bool:
    """Whether an ELF kernel says where to start it through PVH."""
    for at in _program_headers(data):
        kind, _flags, offset, _va, _pa, size, _memory, _align = _PHDR.unpack_from(data, at)
        if kind == _PT_NOTE and _has_note(data[offset : offset + size]):
            return True
    return False


def _sanitizer(data: bytes) -> str:
    """Which of those is built in that no early entry survives, by what it would print."""
    found = _SANITIZER.search(data)
    return found[1].decode() if found else ""


def _has_note(notes: bytes) -> bool:
    at = 0
    while at + 12 <= len(notes):
        name_size, data_size, kind = struct.unpack_from("<III", notes, at)
        name = notes[at + 12 : at + 12 + name_size]
        if kind == _XEN_ELFNOTE_PHYS32_ENTRY and name == b"Xen\0":
            return True
        at += 12 + (name_size + 3) // 4 * 4 + (data_size + 3) // 4 * 4
    return False


def _program_headers(data: bytes) -> list[int]:
    """Where the program headers of a 64-bit little-endian ELF file are; none if it is not one."""
    if len(data) < _EHDR.size or data[4:6] != b"\x02\x01":
        return []
    (table,) = struct.unpack_from("<Q", data, 32)
    entry_size, count = struct.unpack_from("<HH", data, 54)
    if entry_size != _PHDR.size or table + entry_size * count > len(data):
        return []
    return list(range(table, table + entry_size * count, entry_size))
