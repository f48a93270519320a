"""The disk of the emulated boards: the distribution's kernel, and a guest of busybox and dropbear.

The image's builder (:mod:`pytest_hil.qemu.image`) makes kernel and initramfs; a second archive
behind the first (the kernel unpacks both) has what makes it a board: busybox's init, getty, login
and an SSH server instead of our own init and agent. U-Boot finds it all by its standard boot.
"""

from __future__ import annotations

import hashlib
import shutil
import struct
from base64 import b64decode
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pytest_hil import process
from pytest_hil.cache import Cache
from pytest_hil.config import DebianImage
from pytest_hil.errors import ImageError
from pytest_hil.progress import Progress
from pytest_hil.qemu.image import Image, cpio, resolve
from pytest_hil.qemu.image.tree import Tree

KIND = "rig"
ARCH = "aarch64"

_RCS = Path(__file__).with_name("board-rcS.sh")
_IMAGE = DebianImage(name="rig", packages=("dropbear-bin",))
# Of "hil", by crypt(3) with SHA-512.
_HASH = (
    "$6$pytesthil$OxNphpep/8upQ/.gNxMUSEmWEog4y5lWm3IlQGqXUp9Gheh"
    "1i1VRHJVL3ocdJrQG4FwIdcHjrvcFGjiEZAaSr0"
)
_APPEND = "console=ttyAMA0 rdinit=/sbin/init norandmaps cryptomgr.notests"
_EXTLINUX = f"""\
default linux
label linux
  kernel /boot/Image
  initrd /boot/initrd.img
  append {_APPEND}
"""
_INITTAB = """\
::sysinit:/etc/init.d/rcS
::respawn:/usr/sbin/dropbear -F -r /etc/dropbear/host_key
ttyAMA0::respawn:/sbin/getty -L 115200 ttyAMA0 vt102
::ctrlaltdel:/sbin/reboot
"""
_SECTOR = 512
_FIRST_SECTOR = 2048
_LINUX_PARTITION = 0x83


@dataclass(frozen=True, slots=True)
class BoardDisk:
    """``image``: a raw disk, never to be written. ``key``: the private key that root's SSH login
    takes; ``host_key``: the line of the board's own public key.
    """

    image: Path
    key: Path
    host_key: str


def board_disk(cache: Cache, *, progress: Progress) -> BoardDisk:
    """The disk, made if it is not in the cache; a few milliseconds if it is.

    Raises ImageError, ToolMissing, NoRoom.
    """
    image = resolve(_IMAGE, arch=ARCH, cache=cache, progress=progress)
    total = hashlib.sha256(image.key.encode())
    for source in (Path(__file__), _RCS):
        total.update(source.read_bytes())
    folder = cache.make(KIND, f"board-{ARCH}-{total.hexdigest()[:16]}", _builder(image, progress))
    return BoardDisk(folder / "disk", folder / "key", (folder / "host.pub").read_text().strip())


def _builder(image: Image, progress: Progress) -> Callable[[Path], None]:
    def build(folder: Path) -> None:
        progress("building the boards' disk")
        assert image.kernel is not None
        assert image.initrd is not None
        for name in ("key", "host"):
            argv = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "rig", "-f"]
            process.find("ssh-keygen", package="openssh-client")
            process.run([*argv, str(folder / name)])
        root = folder / "root"
        (root / "boot" / "extlinux").mkdir(parents=True)
        (root / "boot" / "extlinux" / "extlinux.conf").write_text(_EXTLINUX)
        shutil.copyfile(image.kernel, root / "boot" / "Image")
        host_key = dropbear_key((folder / "host").read_text())
        own = cpio.archive(_guest((folder / "key.pub").read_bytes(), host_key).items())
        (root / "boot" / "initrd.img").write_bytes(_padded(image.initrd.read_bytes()) + own)
        _write_disk(folder / "disk", root)
        shutil.rmtree(root)
        (folder / "host").unlink()

    return build


def _guest(public: bytes, host_key: bytes) -> Tree:
    """What lies over the builder's guest."""
    tree = Tree()
    tree.file("etc/inittab", _INITTAB.encode())
    tree.file("etc/init.d/rcS", _RCS.read_bytes(), 0o755)
    tree.file("etc/hostname", b"board\n")
    tree.file("etc/issue", b"\nA board of pytest-hil's rig\n\n")
    tree.file(
        "etc/passwd",
        b"root:x:0:0:root:/root:/bin/sh\nguest::1000:1000:guest:/tmp:/bin/sh\n"
        b"nobody:x:65534:65534:nobody:/:/usr/sbin/nologin\n",
    )
    tree.file("etc/shadow", f"root:{_HASH}:19000:0:99999:7:::\n".encode(), 0o600)
    tree.file("etc/group", b"root:x:0:\ntty:x:5:\nguest:x:1000:\nnogroup:x:65534:\n")
    tree.directory("root", 0o700)
    tree.directory("root/.ssh", 0o700)
    tree.file("root/.ssh/authorized_keys", public, 0o600)
    tree.file("etc/dropbear/host_key", host_key, 0o600)
    tree.link("bin/sh", "/bin/busybox")
    for name in ("init", "getty", "reboot", "poweroff", "halt"):
        tree.link(f"sbin/{name}", "/bin/busybox")
    return tree


def dropbear_key(text: str) -> bytes:
    """An Ed25519 key of ssh-keygen's as dropbear keeps it.

    OpenSSH's PROTOCOL.key; buf_put_ed25519_priv_key in dropbear's ed25519.c.
    """
    body = b64decode("".join(line for line in text.splitlines() if not line.startswith("-")))
    magic = b"openssh-key-v1\0"
    if not body.startswith(magic):
        raise ImageError("ssh-keygen wrote a key in a form that is not known")
    rest = body[len(magic) :]
    for _ in ("cipher", "key derivation", "its options"):
        _field, rest = _string(rest)
    _public, rest = _string(rest[4:])  # after the number of keys
    private, _ = _string(rest)
    kind, rest = _string(private[8:])  # after the two check numbers
    _public, rest = _string(rest)
    both, _ = _string(rest)
    if kind != b"ssh-ed25519" or len(both) != 64:
        raise ImageError("ssh-keygen wrote another key than it was asked for")
    return struct.pack(">I", len(kind)) + kind + struct.pack(">I", len(both)) + both


def _string(data: bytes) -> tuple[bytes, bytes]:
    """An SSH string, and what follows it."""
    (size,) = struct.unpack_from(">I", data)
    return data[4 : 4 + size], data[4 + size :]


def _padded(archive: bytes) -> bytes:
    """The kernel looks for the next archive at a multiple of four bytes."""
    return archive + bytes(-len(archive) % 4)


def _write_disk(disk: Path, root: Path) -> None:
    """A partition table with one bootable partition, ext4 with the files below ``root``."""
    process.find("mke2fs", package="e2fsprogs")
    used = sum(path.stat().st_size for path in root.rglob("*") if path.is_file())
    size = (used + used // 8 + 16 * 2**20) // 2**20 * 2**20
    begin = _FIRST_SECTOR * _SECTOR
    with disk.open("wb") as stream:
        stream.write(partition_table(size // _SECTOR))
        stream.truncate(begin + size)
    # What U-Boot 2023.01 reads: no checksums over metadata.
    features = "^has_journal,^metadata_csum,^64bit"
    argv = ["mke2fs", "-q", "-F", "-t", "ext4", "-O", features, "-d", str(root)]
    process.run([*argv, "-E", f"offset={begin}", str(disk), f"{size // 1024}k"], timeout=300)


def partition_table(sectors: int) -> bytes:
    """A master boot record with one bootable Linux partition of so many sectors."""
    unused = b"\xfe\xff\xff"  # cylinder, head and sector: nobody reads them any more
    entry = struct.pack("<B3sB3sII", 0x80, unused, _LINUX_PARTITION, unused, _FIRST_SECTOR, sectors)
    return bytes(446) + entry + bytes(48) + b"\x55\xaa"
