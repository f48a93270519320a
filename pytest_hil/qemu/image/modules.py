"""Kernel modules: which ones a wanted one needs, and in what order they load.

A module says itself what it needs, in its ``.modinfo`` section (``depends=``, ``softdep=``).
Debian's packages come without ``modules.dep``, which depmod makes when they are installed, so
the modules are asked.
"""

from __future__ import annotations

import gzip
import lzma
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from pytest_hil.errors import ImageError, nearest

_SUFFIXES = (".ko", ".ko.xz", ".ko.gz", ".ko.zst")


@dataclass(frozen=True, slots=True)
class Module:
    """One module. ``path`` is relative to /lib/modules/VERSION and ends in ``.ko``."""

    name: str
    path: str
    data: bytes
    depends: tuple[str, ...]
    aliases: tuple[str, ...]


class ModuleTree:
    """A ``/lib/modules/VERSION`` directory."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.version = root.name
        self._files = {
            _name(path.name): path
            for path in sorted(root.rglob("*.ko*"))
            if path.name.endswith(_SUFFIXES) and path.is_file()
        }
        builtin = _lines(root / "modules.builtin")
        self._builtin = frozenset(_name(Path(line).name) for line in builtin)

    def known(self, name: str) -> bool:
        """Whether it is a module or built in."""
        return _name(name) in self._files or _name(name) in self._builtin

    def closure(self, wanted: Iterable[str]) -> list[Module]:
        """The wanted modules and all that they need, each behind what it needs.

        What is built in, or wanted and unknown (see :meth:`known`), is left out. Raises
        ImageError when a module needs one that is not there.
        """
        loaded: dict[str, Module] = {}
        for name in wanted:
            if _name(name) in self._files:
                self._load(_name(name), loaded, ())
        return list(loaded.values())

    def require(self, names: Iterable[str], *, where: str) -> None:
        """Raise ImageError when one of the names is no module of this kernel."""
        for name in names:
            if not self.known(name):
                raise ImageError(
                    f"{where}: the kernel {self.version} has no module {name!r}",
                    mend=nearest(_name(name), self._files) if self._files else "",
                )

    def _load(self, name: str, loaded: dict[str, Module], above: tuple[str, ...]) -> None:
        if name in loaded or name in above:
            return
        path = self._files[name]
        data = _read(path)
        info = modinfo(data, name=str(path))
        hard = [_name(n) for value in info.get("depends", []) for n in value.split(",") if n]
        for needed in [*hard, *_soft(info)]:
            if needed in self._files:
                self._load(needed, loaded, (*above, name))
            elif needed in hard and needed not in self._builtin:
                raise ImageError(f"the module {path} needs {needed}, which is not in {self.root}")
        relative = path.relative_to(self.root)
        loaded[name] = Module(
            name=name,
            path=str(relative.with_name(relative.name.partition(".ko")[0] + ".ko")),
            data=data,
            depends=tuple(n for n in hard if n in self._files),
            aliases=tuple(info.get("alias", [])),
        )


def index_files(modules: Iterable[Module]) -> dict[str, str]:
    """``modules.dep`` and ``modules.alias``, as busybox's and kmod's modprobe read them."""
    chosen = {module.name: module for module in modules}

    def needs(module: Module, seen: dict[str, None]) -> dict[str, None]:
        for name in module.depends:
            if name in chosen and chosen[name].path not in seen:
                seen[chosen[name].path] = None
                needs(chosen[name], seen)
        return seen

    dep = [f"{m.path}: {' '.join(needs(m, {}))}".rstrip() for m in chosen.values()]
    alias = [f"alias {a} {m.name}" for m in chosen.values() for a in m.aliases]
    return {
        "modules.dep": "".join(f"{line}\n" for line in dep),
        "modules.alias": "".join(f"{line}\n" for line in alias),
    }


def modinfo(data: bytes, *, name: str) -> dict[str, list[str]]:
    """The ``key=value`` strings of a module's ``.modinfo`` section (ELF, 32 or 64 bits).

    ``name`` is for the ImageError about what is no module.
    """
    try:
        section = _section(data, b".modinfo")
    except (struct.error, ValueError, IndexError, OverflowError) as error:
        raise ImageError(f"{name} is no sound kernel module: {error}") from error
    found: dict[str, list[str]] = {}
    for item in section.split(b"\0"):
        key, equals, value = item.decode(errors="replace").partition("=")
        if equals:
            found.setdefault(key, []).append(value)
    return found


def find_version(root: Path) -> Path:
    """The ``/lib/modules/VERSION`` directory in what a user gave: that directory itself, one
    that ``INSTALL_MOD_PATH`` filled, or its ``lib/modules``.

    Raises ImageError when there is none, or more than one.
    """
    if not root.is_dir():
        raise ImageError(f"the modules directory {root} does not exist")
    for base in (root / "lib/modules", root / "usr/lib/modules", root):
        if not base.is_dir():
            continue
        if (base / "kernel").is_dir() or (base / "modules.dep").is_file():
            return base
        versions = [path for path in sorted(base.iterdir()) if (path / "kernel").is_dir()]
        if len(versions) == 1:
            return versions[0]
        if versions:
            raise ImageError(
                f"{base} has the modules of {len(versions)} kernels",
                mend=f"name one of them: {', '.join(str(path) for path in versions)}",
            )
    raise ImageError(
        f"{root} has no kernel modules",
        mend="give what `make modules_install INSTALL_MOD_PATH=DIR` filled",
    )


def _soft(info: dict[str, list[str]]) -> list[str]:
    """The names that load before it if they are there: ``softdep=pre: a b post: c``."""
    names = []
    for value in info.get("softdep", []):
        names += [_name(word) for word in value.split() if not word.endswith(":")]
    return names


def _section(data: bytes, wanted: bytes) -> bytes:
    if data[:4] != b"\x7fELF":
        raise ValueError("it does not begin with the ELF magic")
    wide = data[4] == 2
    (table,) = struct.unpack_from("<Q" if wide else "<I", data, 40 if wide else 32)
    size, count, strings = struct.unpack_from("<HHH", data, 58 if wide else 46)
    headers = []
    for at in range(table, table + size * count, size or 1):
        name, _kind = struct.unpack_from("<II", data, at)
        where = struct.unpack_from("<QQ" if wide else "<II", data, at + (24 if wide else 16))
        headers.append((name, *where))
    _, names, _ = headers[strings]
    for name, offset, length in headers:
        end = data.index(b"\0", names + name)
        if data[names + name : end] == wanted:
            return data[offset : offset + length]
    return b""


def _read(path: Path) -> bytes:
    """A module, unpacked, so that the guest need not."""
    data = path.read_bytes()
    try:
        if path.name.endswith(".xz"):
            return lzma.decompress(data)
        if path.name.endswith(".gz"):
            return gzip.decompress(data)
        if path.name.endswith(".zst"):
            import zstandard

            return zstandard.ZstdDecompressor().decompressobj().decompress(data)
    except Exception as error:  # each library has its own
        raise ImageError(f"the module {path} is damaged: {error}") from error
    return data


def _name(name: str) -> str:
    """A module's name as the kernel has it: ``usb-storage.ko.xz`` is ``usb_storage``."""
    return name.partition(".ko")[0].replace("-", "_")


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.is_file() else []
