"""The debian kind: our own initramfs around a distribution's kernel, or the user's."""

from __future__ import annotations

import re
import shutil
import stat
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pytest_hil.cache import Cache
from pytest_hil.config import DebianImage
from pytest_hil.errors import ImageError
from pytest_hil.progress import Progress
from pytest_hil.qemu.image import cpio, deb, guest, linux
from pytest_hil.qemu.image.apt import Apt, Package
from pytest_hil.qemu.image.distribution import Distribution, debian_arch
from pytest_hil.qemu.image.linux import Linux
from pytest_hil.qemu.image.manifest import Manifest, content_key, sum_of
from pytest_hil.qemu.image.tree import Tree

CONSOLES = {"x86_64": "ttyS0", "aarch64": "ttyAMA0", "arm": "ttyAMA0", "riscv64": "ttyS0"}


@dataclass(frozen=True, slots=True)
class _Fetched:
    """Package files: of the guest's own tools, of the user's additions, of the kernel."""

    tools: list[Path]
    extra: list[Path]
    kernel: list[Path]
    versions: dict[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class DebianBuild:
    """Builds one debian image: call it with an empty directory.

    ``renew`` asks for today's package lists. Raises ImageError, ToolMissing without apt.
    """

    spec: DebianImage
    arch: str
    agent: Path
    distribution: Distribution
    cache: Cache
    progress: Progress
    renew: bool = False

    def __call__(self, folder: Path) -> None:
        fetched = self._fetch()
        made = self._linux(fetched, folder / "work")
        shutil.rmtree(folder / "work", ignore_errors=True)
        self.progress("building the initramfs")
        at_boot = [module.name for module in made.modules[: made.at_boot]]
        agent = self.agent.read_bytes()
        tree = guest.base(agent=agent, startup=self.spec.startup, modules=at_boot)
        self._add_tools(tree, fetched.tools)
        guest.add_modules(tree, made)
        for path in fetched.extra:
            guest.add_package(tree, deb.members(path))
        self._add_files(tree)
        guest.add_profile(tree)
        (folder / "kernel").write_bytes(made.kernel)
        if made.config:
            (folder / "config").write_bytes(made.config)
        # Not compressed: the boot takes as long, and every kernel can read it.
        (folder / "initrd").write_bytes(cpio.archive(tree.items()))
        self._manifest(folder, tree, made.version, at_boot, fetched.versions)

    def _fetch(self) -> _Fetched:
        arch = debian_arch(self.arch)
        name = f"{self.distribution.name}-{arch}"
        with self.cache.locked("apt", name, progress=self.progress):
            apt = Apt(
                self.cache.root / "apt" / name,
                arch=arch,
                progress=self.progress,
                sources=self.distribution.sources_list or None,
            )
            if self.renew:
                apt.forget()
            fresh = apt.update()
            try:
                return self._fetch_all(apt, arch)
            except ImageError:
                # Lists older than the mirror name packages that it has no more.
                if fresh:
                    raise
                apt.forget()
                apt.update()
                return self._fetch_all(apt, arch)

    def _fetch_all(self, apt: Apt, arch: str) -> _Fetched:
        self.progress("resolving packages")
        tools = apt.resolve(self.distribution.tools)
        extra = apt.resolve(self.spec.packages) if self.spec.packages else []
        kernels: list[Package] = []
        if self.spec.kernel is None:
            found = apt.resolve([self.distribution.kernel(arch)])
            kernels = [p for p in found if self.distribution.kernel_parts.fullmatch(p.name)]
        every = list(dict.fromkeys([*kernels, *tools, *extra]))
        paths = dict(zip(every, apt.fetch(every), strict=True))
        return _Fetched(
            tools=[paths[p] for p in tools],
            extra=[paths[p] for p in extra],
            kernel=[paths[p] for p in kernels],
            versions={p.name: p.version for p in every},
        )

    def _linux(self, fetched: _Fetched, work: Path) -> Linux:
        if self.spec.kernel is not None:
            return linux.from_user(self.spec, arch=self.arch, progress=self.progress)
        return linux.from_packages(
            fetched.kernel, self.spec, arch=self.arch, work=work, progress=self.progress
        )

    def _add_tools(self, tree: Tree, packages: Sequence[Path]) -> None:
        library = Tree()
        for package in packages:
            guest.add_package(library, deb.members(package))
        busybox = library.get("bin/busybox")
        if busybox is None:
            raise ImageError("the busybox package has no /bin/busybox")
        guest.add_busybox(tree, busybox.data)
        for place, pattern in self.distribution.programs.items():
            for path in _matching(library, pattern):
                guest.add_program(tree, library, path, place)
        for path in _matching(library, r".*/usb\.ids"):
            entry = library.get(path)
            if entry is not None:
                tree.add(path, entry)

    def _add_files(self, tree: Tree) -> None:
        for item in self.spec.files:
            try:
                # The user's own symbolic link means the file behind it.
                _add_file(tree, item.source.resolve(strict=True), item.path, item.mode)
            except OSError as error:
                raise ImageError(
                    f"[image.{self.spec.name}] files: {item.source} cannot be read: "
                    f"{error.strerror}"
                ) from error

    def _manifest(
        self,
        folder: Path,
        tree: Tree,
        version: str,
        at_boot: Sequence[str],
        packages: dict[str, str],
    ) -> None:
        append = " ".join(filter(None, (default_append(self.arch), self.spec.append)))
        files = {
            name: sum_of(folder / name)
            for name in ("kernel", "initrd", "config")
            if (folder / name).exists()
        }
        Manifest(
            name=self.spec.name,
            key=content_key(files["kernel"].sha256, files["initrd"].sha256, append),
            arch=self.arch,
            kernel="kernel",
            initrd="initrd",
            append=append,
            agent=True,
            built=time.time(),
            unpacked=tree.size,
            kernel_version=version,
            files=files,
            packages=packages,
            modules=tuple(at_boot),
        ).write(folder)


def default_append(arch: str) -> str:
    """The kernel's command line.

    norandmaps: emulation translates code by its address, so a program that lands elsewhere
    each time is translated each time; without it a dynamically linked command takes 25 ms
    instead of 6 (QEMU 7.2, x86-64).
    """
    return f"console={CONSOLES[arch]} rdinit=/init norandmaps"


def _add_file(tree: Tree, source: Path, path: str, mode: int | None) -> None:
    """A file of the host, or a directory with all that is in it (``mode`` is for its files)."""
    if source.is_symlink():
        tree.link(path, str(source.readlink()))
    elif source.is_dir():
        tree.directory(path, stat.S_IMODE(source.stat().st_mode))
        for inner in sorted(source.iterdir()):
            _add_file(tree, inner, f"{path}/{inner.name}", mode)
    else:
        own = stat.S_IMODE(source.stat().st_mode)
        tree.file(path, source.read_bytes(), own if mode is None else mode)


def _matching(tree: Tree, pattern: str) -> Iterator[str]:
    for path, _entry in list(tree.items()):
        if re.fullmatch(pattern, path):
            yield path
