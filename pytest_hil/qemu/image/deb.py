"""What is in a Debian package, without installing it."""

from __future__ import annotations

import stat
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

from pytest_hil import process
from pytest_hil.errors import ImageError
from pytest_hil.qemu.image.tree import Entry, normal

_TYPES = {
    tarfile.DIRTYPE: stat.S_IFDIR,
    tarfile.SYMTYPE: stat.S_IFLNK,
    tarfile.REGTYPE: stat.S_IFREG,
    tarfile.AREGTYPE: stat.S_IFREG,
    tarfile.CHRTYPE: stat.S_IFCHR,
}


def members(
    package: Path, *, wanted: Callable[[str], bool] = lambda _path: True
) -> Iterator[tuple[str, Entry]]:
    """(path, entry) of the package's files whose path is ``wanted``, in the package's order.

    Paths are relative and cannot lead out of the guest's root. dpkg-deb does the unpacking:
    it is wherever apt is, and knows every compression. No maintainer script runs.
    Hard links come out as symbolic ones.
    """
    argv = ["dpkg-deb", "--fsys-tarfile", str(package)]
    with process.start(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as dpkg:
        assert dpkg.stdout is not None
        assert dpkg.stderr is not None
        try:
            with tarfile.open(fileobj=dpkg.stdout, mode="r|", bufsize=1 << 20) as tar:
                yield from _entries(tar, wanted)
            dpkg.stdout.read()  # the padding, so that dpkg-deb ends well
        except (tarfile.TarError, EOFError) as error:
            raise _damaged(package, str(error)) from error
        if dpkg.wait() != 0:
            raise _damaged(package, dpkg.stderr.read().decode(errors="replace").strip())


def _entries(tar: tarfile.TarFile, wanted: Callable[[str], bool]) -> Iterator[tuple[str, Entry]]:
    for member in tar:
        path = normal(member.name)
        if not wanted(path):
            continue
        if member.islnk():
            target = f"/{normal(member.linkname)}".encode()
            yield path, Entry(stat.S_IFLNK | 0o777, target)
            continue
        kind = _TYPES.get(member.type)
        if kind is None:
            continue
        data = b""
        if member.issym():
            data = member.linkname.encode()
        elif member.isreg():
            stream = tar.extractfile(member)
            assert stream is not None  # it is a regular file
            data = stream.read()
        device = (member.devmajor, member.devminor) if member.ischr() else (0, 0)
        mode = kind | (member.mode & 0o7777)
        yield path, Entry(mode, data, member.uid, member.gid, device)


def _damaged(package: Path, why: str) -> ImageError:
    return ImageError(
        f"the package {package.name} cannot be unpacked: {why}",
        mend=f"remove {package} and build again: it is then fetched anew",
    )
