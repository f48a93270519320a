from __future__ import annotations

import bz2
import gzip
import lzma
import struct
from collections.abc import Callable
from shutil import which
from typing import TYPE_CHECKING

import pytest
import zstandard

from pytest_hil import process
from pytest_hil.errors import ImageError
from pytest_hil.qemu.image import kernel

if TYPE_CHECKING:
    from tests.qemu.image.conftest import Make


def with_tool(tool: str) -> Callable[[bytes], bytes]:
    options = ["-l"] if tool == "lz4" else []
    return lambda data: process.run([tool, *options, "-c"], input=data).stdout


def needs(tool: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(which(tool) is None, reason=f"no {tool} here")


def lzma_alone(data: bytes) -> bytes:
    return lzma.compress(data, lzma.FORMAT_ALONE)


@pytest.mark.parametrize(
    "compress",
    [
        pytest.param(gzip.compress, id="gzip"),
        pytest.param(lzma.compress, id="xz"),
        pytest.param(lzma_alone, id="lzma"),
        pytest.param(bz2.compress, id="bzip2"),
        pytest.param(zstandard.ZstdCompressor().compress, id="zstd"),
        pytest.param(with_tool("lz4"), id="lz4", marks=needs("lz4")),
        pytest.param(with_tool("lzop"), id="lzo", marks=needs("lzop")),
    ],
)
def test_a_bzimage_becomes_its_vmlinux(make: Make, compress: Callable[[bytes], bytes]) -> None:
    vmlinux = make.vmlinux()

    made = kernel.prepare(make.bzimage(vmlinux, compress), name="k", arch="x86_64")

    assert made.data == kernel.strip(vmlinux)
    assert made.version == "9.9.9-test"
    assert made.note == ""


def test_without_the_pvh_note_the_bzimage_stays_and_it_is_said(make: Make) -> None:
    bzimage = make.bzimage(make.vmlinux(note=b""))

    made = kernel.prepare(bzimage, name="my kernel", arch="x86_64")

    assert made.data == bzimage
    assert "my kernel has no PVH entry (CONFIG_PVH)" in made.note


def test_a_vmlinux_without_the_pvh_note_cannot_be_started(make: Make) -> None:
    with pytest.raises(ImageError, match="CONFIG_PVH=y, or give the bzImage"):
        kernel.prepare(make.vmlinux(note=b""), name="k", arch="x86_64")


def test_a_kernel_with_a_sanitizer_stays_a_bzimage(make: Make) -> None:
    vmlinux = make.vmlinux(tail=b"\0013BUG: KASAN: %s in %pS\n\0")
    packed = make.bzimage(vmlinux)
    made = kernel.prepare(packed, name="mine", arch="x86_64")
    assert made.data == packed
    assert made.note == "mine has KASAN: it boots as a bzImage, some seconds slower"
    with pytest.raises(ImageError, match=r"with KASAN, which dies .*\n?.*give the bzImage"):
        kernel.prepare(vmlinux, name="mine", arch="x86_64")


def test_other_notes_are_no_pvh_note(make: Make) -> None:
    build_id = struct.pack("<III", 4, 20, 3) + b"GNU\0" + bytes(20)

    assert kernel.has_pvh_entry(make.vmlinux(note=build_id + make.PVH_NOTE))
    assert not kernel.has_pvh_entry(make.vmlinux(note=build_id))
    assert not kernel.has_pvh_entry(make.vmlinux(note=make.PVH_NOTE.replace(b"Xen", b"Xyz")))


def test_debug_information_and_trailing_zeros_go(make: Make) -> None:
    vmlinux = make.elf(
        note=make.PVH_NOTE, content=b"Linux version 1 (x)".ljust(5000), tail=b"debug" * 1000
    )

    stripped = kernel.strip(vmlinux)

    assert b"debug" not in stripped
    assert len(stripped) < len(vmlinux) - 4000
    assert kernel.has_pvh_entry(stripped)
    (section_table,) = struct.unpack_from("<Q", stripped, 40)
    assert section_table == 0
    (in_file, in_memory) = struct.unpack_from("<QQ", stripped, 64 + 32)
    assert in_file <= in_memory


@pytest.mark.parametrize("length", [100, 2000, 4000])
def test_a_bzimage_that_is_cut_short_says_so(make: Make, length: int) -> None:
    whole = make.bzimage(make.vmlinux(), lambda data: gzip.compress(data, 0))

    with pytest.raises(ImageError, match=r"k: (cut short|100 bytes are no kernel)"):
        kernel.prepare(whole[:length], name="k", arch="x86_64")


def test_a_damaged_payload_is_an_error(make: Make) -> None:
    bzimage = bytearray(make.bzimage(make.vmlinux(), lzma.compress))
    bzimage[3 * 512 + 100 + 60] ^= 0xFF

    with pytest.raises(ImageError, match="damaged"):
        kernel.prepare(bytes(bzimage), name="k", arch="x86_64")


def test_unknown_compression_is_named(make: Make) -> None:
    bzimage = make.bzimage(make.vmlinux(), lambda data: b"WHAT" + data)

    with pytest.raises(ImageError, match=r"not known .begins 57484154"):
        kernel.prepare(bzimage, name="k", arch="x86_64")


def test_a_missing_decompressor_is_named(
    make: Make, monkeypatch: pytest.MonkeyPatch, tmp_path: object
) -> None:
    bzimage = make.bzimage(make.vmlinux(), lambda data: b"\x02\x21\x4c\x18" + data)
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(ImageError, match="apt-get install lz4"):
        kernel.prepare(bzimage, name="k", arch="x86_64")


def test_an_ancient_boot_protocol_is_refused(make: Make) -> None:
    with pytest.raises(ImageError, match=r"older than 2\.08"):
        kernel.prepare(make.bzimage(make.vmlinux(), version=0x207), name="k", arch="x86_64")


def arm64_image(text: bytes = b"Linux version 6.1.0-arm64 (x)") -> bytes:
    return bytes(56) + b"ARM\x64" + bytes(4) + text.ljust(2000, b"\0")


def test_a_gzipped_arm64_image_is_unpacked() -> None:
    made = kernel.prepare(gzip.compress(arm64_image()), name="k", arch="aarch64")

    assert made.data == arm64_image()
    assert made.version == "6.1.0-arm64"


def test_an_efi_zboot_image_is_unpacked() -> None:
    payload = gzip.compress(arm64_image())
    zboot = b"MZ\0\0zimg" + struct.pack("<II", 128, len(payload)).ljust(120, b"\0") + payload

    assert kernel.prepare(zboot, name="k", arch="aarch64").data == arm64_image()


def test_a_kernel_that_unpacks_to_itself_ends() -> None:
    with pytest.raises(ImageError, match="more than once"):
        kernel.prepare(gzip.compress(gzip.compress(b"x" * 3000)), name="k", arch="aarch64")


@pytest.mark.parametrize(("arch", "found"), [("x86_64", "aarch64"), ("riscv64", "aarch64")])
def test_another_architecture_is_named(arch: str, found: str) -> None:
    with pytest.raises(ImageError, match=f"not a kernel for {arch} but for {found}"):
        kernel.prepare(arm64_image(), name="k", arch=arch)


def test_something_else_is_no_kernel() -> None:
    with pytest.raises(ImageError, match="an unknown architecture"):
        kernel.prepare(b"#!/bin/sh\n" * 500, name="k", arch="x86_64")
