"""The files of our own guest, but for kernel modules and what the user adds."""

from __future__ import annotations

import posixpath
import shlex
import stat
from collections.abc import Iterable, Sequence
from pathlib import Path

from pytest_hil.errors import ImageError
from pytest_hil.qemu.image import elf
from pytest_hil.qemu.image.linux import Linux
from pytest_hil.qemu.image.modules import index_files
from pytest_hil.qemu.image.tree import Entry, Tree

INIT = Path(__file__).with_name("guest-init.sh")

_ETC = {
    "passwd": "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/usr/sbin/nologin\n",
    "group": "root:x:0:\ntty:x:5:\nnogroup:x:65534:\n",
    "hosts": "127.0.0.1 localhost hil\n::1 localhost\n",
    "hostname": "hil\n",
    "nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\nservices: files\n",
    # QEMU's user networking answers names there.
    "resolv.conf": "nameserver 10.0.2.3\n",
    "shells": "/bin/sh\n",
    "machine-id": "",
}
_DIRECTORIES = {
    ".": 0o755,  # as it is mounted, everybody may write to it
    "dev": 0o755,
    "etc": 0o755,
    "mnt": 0o755,
    "proc": 0o555,
    "root": 0o700,
    "run": 0o755,
    "sys": 0o555,
    "tmp": 0o1777,
    "usr/local/bin": 0o755,
    "usr/local/sbin": 0o755,
    "var/lib": 0o755,
    "var/log": 0o755,
    "var/tmp": 0o1777,
}
_NOT_NEEDED = (
    "usr/share/doc/",
    "usr/share/doc-base/",
    "usr/share/man/",
    "usr/share/info/",
    "usr/share/locale/",
    "usr/share/lintian/",
    "usr/share/bug/",
    "usr/share/bash-completion/",
    "usr/share/zsh/",
    "usr/include/",
    "usr/share/initramfs-tools/",
)
# The kernel and busybox's scripts look for these by their full names.
_IN_SBIN = ("modprobe", "insmod", "rmmod", "ifconfig", "route", "poweroff", "reboot", "halt")


def base(*, agent: bytes, startup: Iterable[str], modules: Sequence[str]) -> Tree:
    """Directories, /etc, /init and the agent. ``modules`` load at boot, in this order."""
    tree = Tree()
    for path, mode in _DIRECTORIES.items():
        tree.directory(path, mode)
    tree.link("var/run", "/run")
    tree.node("dev/console", 0o600, 5, 1)  # the kernel opens it before /init runs
    tree.node("dev/null", 0o666, 1, 3)
    for name, text in _ETC.items():
        tree.file(f"etc/{name}", text.encode())
    tree.file("init", INIT.read_bytes(), 0o755)
    tree.file("sbin/hil-agent", agent, 0o755)
    tree.file("etc/hil/modules", f"{' '.join(modules)}\n".encode())
    steps = "".join(f"step {shlex.quote(line)}\n" for line in startup)
    tree.file("etc/hil/startup", steps.encode())
    return tree


def add_busybox(tree: Tree, busybox: bytes) -> None:
    """busybox, and a link for each of its applets."""
    tree.file("bin/busybox", busybox, 0o755)
    for name in applets(busybox):
        tree.link(f"bin/{name}", "/bin/busybox")
    for name in _IN_SBIN:
        tree.link(f"sbin/{name}", "/bin/busybox")


def applets(busybox: bytes) -> list[str]:
    """The names of a busybox's applets, read out of the program: it may be another machine's.

    They are one table of NUL-terminated names in alphabetical order, which begins with
    ``[`` and ``[[`` (busybox, applets/applet_tables.c).
    """
    begin = busybox.find(b"[\0[[\0")
    end = busybox.find(b"\0\0", begin)
    names = busybox[begin:end].decode("ascii", errors="replace").split("\0")
    if begin < 0 or "sh" not in names:
        raise ImageError("no table of applets was found in this busybox")
    return [name for name in names if name not in ("busybox", "sh")]


def add_program(tree: Tree, library: Tree, path: str, place: str) -> None:
    """Copy a program of ``library`` to ``place``, with the libraries that it needs."""
    entry = _file(library, path)
    tree.file(place, entry.data, 0o755)
    wanted = [elf.needs(entry.data)]
    while wanted:
        need = wanted.pop()
        paths = [_library(library, name, needed_by=path) for name in need.libraries]
        if need.interpreter:
            paths.append(need.interpreter)
        for found in paths:
            if found not in tree:
                copy = _file(library, found)
                tree.file(found, copy.data, 0o755)
                wanted.append(elf.needs(copy.data))


def add_modules(tree: Tree, linux: Linux) -> None:
    """Modules and the files by which modprobe finds them."""
    root = f"lib/modules/{linux.version}"
    if not linux.modules and not linux.builtin:
        return
    tree.directory(root)
    for module in linux.modules:
        tree.file(f"{root}/{module.path}", module.data)
    for name, text in index_files(linux.modules).items():
        tree.file(f"{root}/{name}", text.encode())
    tree.file(f"{root}/modules.builtin", linux.builtin)


def add_package(tree: Tree, members: Iterable[tuple[str, Entry]]) -> None:
    """All of a package but its documentation, translations and character set tables."""
    for path, entry in members:
        if not f"{path}/".startswith(_NOT_NEEDED) and "/gconv/" not in path:
            tree.add(path, entry)


def add_profile(tree: Tree) -> None:
    """/etc/profile for the shell on the console; call it when all programs are there.

    That shell is busybox's, for its line editing. It runs an applet before it looks at PATH:
    an alias each gives way to the programs of the user's packages.
    """
    busybox = tree.get("bin/busybox")
    assert busybox is not None
    lines = ["export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]
    for name in applets(busybox.data):
        for folder in ("usr/local/sbin", "usr/local/bin", "usr/sbin", "usr/bin"):
            path = f"{folder}/{name}"
            if name.isalnum() and path in tree and not _is_applet(tree, path):
                lines.append(f"alias {name}=/{path}")
                break
    tree.file("etc/profile", "".join(f"{line}\n" for line in lines).encode())


def _is_applet(tree: Tree, path: str) -> bool:
    return tree.real(path) == tree.real("bin/busybox")


def _file(tree: Tree, path: str) -> Entry:
    real = tree.real(path)
    entry = tree.get(real) if real is not None else None
    if entry is None or not stat.S_ISREG(entry.mode):
        raise ImageError(f"the packages have no file /{path.lstrip('/')}")
    return entry


def _library(library: Tree, name: str, *, needed_by: str) -> str:
    """Where a library is: in /usr/lib or one directory below it (Debian's multiarch)."""
    found = [
        path
        for path, _entry in library.items()
        if posixpath.basename(path) == name and path.startswith("usr/lib") and path.count("/") <= 3
    ]
    if not found:
        raise ImageError(f"the packages have no library {name}, which {needed_by} needs")
    return min(found, key=lambda path: (path.count("/"), path))
