"""Where a kernel's source comes from: a tree of the user's, or the distribution's package."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from pytest_hil.cache import MANIFEST, Cache
from pytest_hil.errors import ConfigError, ImageError
from pytest_hil.progress import Progress
from pytest_hil.qemu.image.apt import Apt, Package
from pytest_hil.qemu.image.distribution import Distribution, debian_arch, host_distribution
from pytest_hil.qemu.kernel_build import together, tools

KIND = "kernel-source"
"""Unpacked packages' place in the cache: ``KEY/tree``."""

_PACKAGE = re.compile(r"linux-source-\d[\d.]*")
_NUMBER = re.compile(r"^(VERSION|PATCHLEVEL|SUBLEVEL|EXTRAVERSION) *= *(\S*)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Source:
    """``version`` is the kernel's; ``identity`` changes when a file of the tree does.

    ``users``: a tree that may change at any time.
    """

    tree: Path
    version: str
    identity: str
    users: bool = False

    def unchanged(self) -> bool:
        """Whether it is as it was."""
        return not self.users or _state(self.tree) == self.identity


def of_directory(tree: Path) -> Source:
    """The user's tree. Raises ConfigError when it is none, or something was built in it."""
    tree = tree.expanduser().absolute()
    version = _version(tree)
    _check_clean(tree)
    check_name(tree, "--source")
    return Source(tree, version, _state(tree), users=True)


def of_distribution(
    cache: Cache,
    *,
    arch: str,
    progress: Progress,
    refresh: bool = False,
    distribution: Distribution | None = None,
) -> Source:
    """The distribution's, fetched and unpacked when there is none here yet.

    ``refresh`` looks for a newer one. Raises ImageError, NoRoom, and ToolMissing when a kernel
    could not be built of it.
    """
    distribution = distribution or host_distribution()
    prefix = f"{distribution.name}-{distribution.release}-"
    found = None if refresh else _newest(cache, prefix)
    if found is None:
        check_name(cache.root, "the cache")
        tools.check()  # before hundreds of megabytes are fetched for nothing
        package, path = _fetch(cache, arch, progress, distribution, renew=refresh)

        def build(folder: Path) -> None:
            progress(f"unpacking {package.name}")
            _unpack(path, folder)
            facts = {"package": package.name, "version": package.version}
            (folder / MANIFEST).write_text(json.dumps(facts))

        key = prefix + f"{package.name}_{package.version}".replace(":", "+")
        found = cache.make(KIND, key, build, progress=progress)
        if not (found / "tree" / "Makefile").is_file():  # somebody tidied up in the cache
            found = cache.replace(KIND, key, build, progress=progress)
    tree = found / "tree"
    return Source(tree, _version(tree), found.name)


def check_name(path: Path, what: str) -> None:
    """Raise ConfigError for a path that the kernel's Makefile does not take."""
    if re.search(r"[\s:]", str(path)):
        raise ConfigError(
            what,
            f"{str(path)!r} has a blank or a colon: the kernel's Makefile takes no such paths",
            mend="use another directory (PYTEST_HIL_CACHE=DIR for the cache)",
        )


def _version(tree: Path) -> str:
    """As the tree's Makefile says it: "6.1.192"."""
    try:
        text = (tree / "Makefile").read_text(errors="replace")[:4096]
    except OSError:
        text = ""
    parts: dict[str, str] = dict(_NUMBER.findall(text))
    if not {"VERSION", "PATCHLEVEL"} <= parts.keys() or not (tree / "Kconfig").is_file():
        raise ConfigError(
            "--source",
            f"{tree} is no kernel's source tree: no Makefile with VERSION, or no Kconfig",
            mend="give the directory that has them, or `debian` for the distribution's source",
        )
    numbers = [parts[name] for name in ("VERSION", "PATCHLEVEL", "SUBLEVEL") if parts.get(name)]
    return ".".join(numbers) + parts.get("EXTRAVERSION", "")


def _check_clean(tree: Path) -> None:
    """What the kernel's Makefile refuses to build beside (its target outputmakefile)."""
    built = [tree / ".config", tree / "include" / "config"]
    built += sorted(tree.glob("arch/*/include/generated"))
    if left := next((path for path in built if path.exists()), None):
        raise ConfigError(
            "--source",
            f"something was built in {tree}: there is {left.relative_to(tree)}",
            mend=f"`make -C {tree} mrproper` removes it (and its .config: keep a copy), or give "
            "another tree, such as one of `git worktree add`",
        )


def _state(tree: Path) -> str:
    """A hash of the names, sizes and times of all files but hidden ones."""
    total = hashlib.sha256()
    for folder, folders, names in os.walk(tree):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            # What an editor keeps beside a file is hidden; so is nothing that a build reads.
            if not name.startswith("."):
                try:
                    state = os.lstat(os.path.join(folder, name))  # noqa: PTH118 (80,000 of them)
                except FileNotFoundError:
                    continue
                total.update(f"{name}\0{state.st_size}\0{state.st_mtime_ns}\0".encode())
        total.update(os.fsencode(folder) + b"\n")
    return total.hexdigest()


def _newest(cache: Cache, prefix: str) -> Path | None:
    # Not cache.entries(): that adds up the sizes of 80,000 files.
    folder = cache.root / KIND
    found = [
        path
        for path in folder.glob(f"{prefix}*")
        if cache.get(KIND, path.name) is not None and (path / "tree" / "Makefile").is_file()
    ]
    return max(found, key=lambda path: (path / MANIFEST).stat().st_mtime, default=None)


def _fetch(
    cache: Cache, arch: str, progress: Progress, distribution: Distribution, *, renew: bool
) -> tuple[Package, Path]:
    name = f"{distribution.name}-{debian_arch(arch)}"
    with cache.locked("apt", name, progress=progress):
        apt = Apt(
            cache.root / "apt" / name,
            arch=debian_arch(arch),
            progress=progress,
            sources=distribution.sources_list or None,
        )
        if renew:
            apt.forget()
        fresh = apt.update()
        try:
            return _fetch_with(apt)
        except ImageError:
            # Lists older than the mirror name packages that it has no more.
            if fresh:
                raise
            apt.forget()
            apt.update()
            return _fetch_with(apt)


def _fetch_with(apt: Apt) -> tuple[Package, Path]:
    # The meta package leads to the present one; what else that wants (binutils, …) is the host's.
    for package in apt.resolve(["linux-source"]):
        if _PACKAGE.fullmatch(package.name):
            (path,) = apt.fetch([package])
            return package, path
    raise ImageError("the package linux-source leads to no linux-source-VERSION")


def _unpack(package: Path, folder: Path) -> None:
    """The tarball in the package, into ``folder/tree``."""
    work, tree = folder / "work", folder / "tree"
    work.mkdir()
    tree.mkdir()
    _run(["dpkg-deb", "--extract", str(package), str(work)], package)
    tarballs = [path for path in work.rglob("linux-source-*.tar.*") if not path.is_symlink()]
    if len(tarballs) != 1:
        raise ImageError(f"the package {package.name} holds {len(tarballs)} tarballs, not one")
    options = ["--no-same-owner", "--strip-components=1", "-C", str(tree)]
    _run(["tar", "-xf", str(tarballs[0]), *options], package)
    shutil.rmtree(work)


def _run(argv: list[str], package: Path) -> None:
    ended = together.run(argv)
    if ended.exit_code != 0:
        said = "\n".join(f"    {line}" for line in ended.said[-8:])
        raise ImageError(
            f"the package {package.name} cannot be unpacked:\n{said}",
            mend=f"is there room on the disk (2 GB)? If there is, remove {package}: it is then "
            "fetched anew",
        )
