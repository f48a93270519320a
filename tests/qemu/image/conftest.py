"""Small real things: ELF files, kernels, packages and a package repository, made here."""

from __future__ import annotations

import gzip
import hashlib
import shutil
import struct
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from pytest_hil.cache import Cache
from pytest_hil.config import DebianImage
from pytest_hil.qemu.image.debian import DebianBuild
from pytest_hil.qemu.image.distribution import DEBIAN, Distribution

PVH_NOTE = struct.pack("<III", 4, 4, 18) + b"Xen\0" + struct.pack("<I", 0x1000000)


def make_elf(
    *,
    needed: tuple[str, ...] = (),
    interpreter: str = "",
    note: bytes = b"",
    content: bytes = b"",
    sections: Mapping[str, bytes] | None = None,
    machine: int = 62,
    tail: bytes = b"",
) -> bytes:
    """A 64-bit little-endian ELF file with one loaded segment, and what else is asked for.

    ``tail`` lies behind the last segment, as debug information does.
    """
    strings = b"\0" + b"".join(name.encode() + b"\0" for name in needed)
    base = 0x400000
    blobs = {"content": content, "strings": strings, "note": note}
    blobs["interpreter"] = interpreter.encode() + b"\0"
    at = {}
    offset = 64 + 4 * 56
    body = b""
    for name, blob in blobs.items():
        at[name] = offset + len(body)
        body += blob
    at["dynamic"] = offset + len(body)
    dynamic = b""
    for name in needed:
        dynamic += struct.pack("<QQ", 1, strings.index(name.encode()))
    dynamic += struct.pack("<QQQQ", 5, base + at["strings"], 0, 0)
    body += dynamic
    end = offset + len(body)

    def header(kind: int, where: int, size: int) -> bytes:
        return struct.pack("<IIQQQQQQ", kind, 5, where, base + where, 0, size, size, 4)

    headers = [header(1, 0, end)]
    if needed:
        headers.append(header(2, at["dynamic"], len(dynamic)))
    if interpreter:
        headers.append(header(3, at["interpreter"], len(blobs["interpreter"])))
    if note:
        headers.append(header(4, at["note"], len(note)))
    table, count = _sections(sections or {}, end + len(tail))
    ident = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
    start = end + len(tail) + len(table) - count * 64
    shoff = start if count else 0
    ehdr = struct.pack(
        "<16sHHIQQQIHHHHHH",
        *(ident, 2, machine, 1, base, 64, shoff, 0, 64, 56, len(headers), 64, count),
        max(0, count - 1),
    )
    return ehdr + b"".join(headers).ljust(4 * 56, b"\0") + body + tail + table


def _sections(sections: Mapping[str, bytes], start: int) -> tuple[bytes, int]:
    """Section contents and headers, the string table last; and how many headers."""
    if not sections:
        return b"", 0
    names = b"\0" + b"".join(name.encode() + b"\0" for name in sections) + b".shstrtab\0"
    body, headers = b"", bytes(64)
    for name, data in [*sections.items(), (".shstrtab", names)]:
        where = start + len(body)
        index = names.index(b"\0" + name.encode() + b"\0") + 1
        headers += struct.pack("<IIQQQQIIQQ", index, 1, 0, 0, where, len(data), 0, 0, 1, 0)
        body += data
    return body + headers, len(sections) + 2


def make_module(*, depends: str = "", **info: str | tuple[str, ...]) -> bytes:
    """A kernel module, as far as its .modinfo goes."""
    items = [f"depends={depends}"]
    for key, value in info.items():
        items += [f"{key}={one}" for one in ([value] if isinstance(value, str) else value)]
    return make_elf(sections={".modinfo": "".join(f"{item}\0" for item in items).encode()})


def make_vmlinux(
    *, note: bytes = PVH_NOTE, version: str = "9.9.9-test", tail: bytes = b""
) -> bytes:
    banner = f"Linux version {version} (somebody@somewhere) #1\n".encode()
    return make_elf(note=note, content=banner.ljust(4096, b"k"), tail=tail)


def make_bzimage(
    vmlinux: bytes, compress: Callable[[bytes], bytes] = gzip.compress, *, version: int = 0x20F
) -> bytes:
    """A bzImage by the boot protocol: two setup sectors, a stub, the payload and its size."""
    setup = bytearray(3 * 512)
    setup[0x1F1] = 2
    setup[0x202:0x206] = b"HdrS"
    struct.pack_into("<H", setup, 0x206, version)
    payload = compress(vmlinux) + struct.pack("<I", len(vmlinux))
    struct.pack_into("<II", setup, 0x248, 100, len(payload))
    return bytes(setup) + bytes(100) + payload + b"behind it"


BUSYBOX = b"\x7fELF code\x07[\0[[\0ash\0cat\0ip\0modprobe\0poweroff\0sh\0true\0\0 more"


@dataclass
class Repository:
    """A package repository of files that apt can use, made by dpkg-deb."""

    root: Path
    arch: str = "amd64"
    _packages: list[str] = field(default_factory=list)

    def copy(self, root: Path) -> Repository:
        shutil.copytree(self.root, root)
        return Repository(root, self.arch, list(self._packages))

    @property
    def sources_list(self) -> str:
        return f"deb [trusted=yes] file:{self.root} ./\n"

    def add(
        self,
        name: str,
        files: Mapping[str, bytes | str],
        *,
        version: str = "1.0",
        depends: str = "",
    ) -> Path:
        """A package of files (``bytes``) and symbolic links (``str``)."""
        tree = self.root / "tree" / name
        (tree / "DEBIAN").mkdir(parents=True)
        for path, content in files.items():
            place = tree / path
            place.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(content, str):
                place.symlink_to(content)
            else:
                place.write_bytes(content)
                place.chmod(0o755)
        fields = f"Package: {name}\nVersion: {version}\nArchitecture: {self.arch}\n"
        fields += f"Maintainer: test <test@example.org>\nDepends: {depends}\nDescription: test\n"
        control = "\n".join(line for line in fields.splitlines() if line != "Depends: ") + "\n"
        (tree / "DEBIAN" / "control").write_text(control)
        script = tree / "DEBIAN" / "postinst"
        script.write_text("#!/bin/sh\nexit 1\n")
        script.chmod(0o755)
        deb = self.root / f"{name}_{version}_{self.arch}.deb"
        options = ("--root-owner-group", "-Zgzip", "-z1")
        command = ["dpkg-deb", *options, "--build", str(tree), str(deb)]
        subprocess.run(command, check=True, capture_output=True)
        data = deb.read_bytes()
        sums = f"Size: {len(data)}\nSHA256: {hashlib.sha256(data).hexdigest()}\n"
        self._packages.append(f"{control}Filename: ./{deb.name}\n{sums}")
        (self.root / "Packages").write_text("\n".join(self._packages))
        return deb


def skip_without_apt() -> None:
    if shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
        pytest.skip("no apt and dpkg-deb on this host")


class Make:
    """What is above, for tests: they cannot import this file."""

    PVH_NOTE = PVH_NOTE
    BUSYBOX = BUSYBOX
    elf = staticmethod(make_elf)
    module = staticmethod(make_module)
    vmlinux = staticmethod(make_vmlinux)
    bzimage = staticmethod(make_bzimage)


@pytest.fixture(scope="session")
def make() -> type[Make]:
    return Make


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    """An empty one."""
    skip_without_apt()
    root = tmp_path / "repository"
    root.mkdir()
    return Repository(root)


class Host:
    """A distribution of small packages on this host, and images built from them."""

    def __init__(self, repository: Repository, root: Path) -> None:
        self.repository = repository
        self.root = root
        self.cache = Cache(root / "cache")
        self.said: list[str] = []
        self.agent = root / "agent"
        self.agent.write_bytes(b"agent")

    @property
    def distribution(self) -> Distribution:
        return replace(DEBIAN, name="test", sources_list=self.repository.sources_list)

    def build(self, spec: DebianImage, *, refresh: bool = False) -> Path:
        """Build it, whether it is there or not; its directory in the cache."""
        build = DebianBuild(
            spec=spec,
            arch="x86_64",
            agent=self.agent,
            distribution=self.distribution,
            cache=self.cache,
            progress=self.said.append,
            renew=refresh,
        )
        return self.cache.replace("image", spec.name, build)


def add_kernel(repository: Repository) -> None:
    modules = "lib/modules/9.9.9-test"
    repository.add("linux-image-amd64", {}, depends="linux-image-9.9.9-test, linux-base")
    repository.add(
        "linux-image-9.9.9-test",
        {
            "boot/vmlinuz-9.9.9-test": make_bzimage(make_vmlinux()),
            f"{modules}/modules.builtin": b"kernel/fs/ext4/ext4.ko\n",
            f"{modules}/kernel/vhci-hcd.ko": make_module(depends="usbcore"),
            f"{modules}/kernel/usbcore.ko": make_module(alias="usb:*"),
            f"{modules}/kernel/loop.ko": make_module(),
            f"{modules}/kernel/special.ko": make_module(depends="usbcore"),
            f"{modules}/kernel/unwanted.ko": make_module(),
        },
    )


def add_tools(repository: Repository) -> None:
    add = repository.add
    program = make_elf(needed=("libudev.so.1",), interpreter="/lib64/ld.so")
    add("busybox-static", {"bin/busybox": BUSYBOX})
    add("klibc-utils", {"usr/lib/klibc/bin/sh": make_elf(interpreter="/lib/klibc.so")})
    add("libklibc", {"lib/klibc.so": make_elf()})
    add(
        "usbip",
        {"usr/sbin/usbip": program, "usr/sbin/usbipd": program, "usr/share/man/x": b"manual"},
        depends="libudev1",
    )
    libraries = {"usr/lib/x/libudev.so.1": make_elf(), "lib64/ld.so": make_elf()}
    add("libudev1", {**libraries, "usr/lib/x/unused.so": make_elf()}, depends="libklibc")
    add("usb.ids", {"usr/share/misc/usb.ids": b"1d6b  Linux Foundation\n"})


@pytest.fixture(scope="session")
def distribution(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """A kernel and the tools of a guest; copy it, do not add to it."""
    skip_without_apt()
    repository = Repository(tmp_path_factory.mktemp("distribution"))
    add_kernel(repository)
    add_tools(repository)
    return repository


@pytest.fixture
def host(distribution: Repository, tmp_path: Path) -> Host:
    return Host(distribution.copy(tmp_path / "distribution"), tmp_path)
