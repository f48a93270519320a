"""From a source and features to a kernel in the cache: the shell around ``make``."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from pytest_hil import process
from pytest_hil.cache import MANIFEST, Cache
from pytest_hil.errors import ImageError, NoRoom, describe_exit
from pytest_hil.progress import Progress, silent
from pytest_hil.qemu.kernel_build import fragments, together, tools
from pytest_hil.qemu.kernel_build.source import Source, check_name

KIND = "kernel"
"""Built kernels' place in the cache."""

_OWNER = ".builder"
_ERROR = re.compile(r"(error|Error|undefined reference|multiple definition|Killed)\b")

OBJECTS = "kernel-objects"
"""The build directories' place, each with the name of its kernel. A kernel that counts (gcov) names
its own, so they stay where they were: with what modules are built with, and gcov's notes.
"""

FORMAT = 3
"""Changes when the kernels of an older pytest-hil must not be used any more."""

# Not vmlinux, though QEMU takes it too: it enters that through its PVH door (Linux:
# arch/x86/platform/pvh/enlighten.c), before there is a shadow memory. With KASAN or KCSAN the first
# function that is instrumented resets the machine, and so again for ever.
_IMAGE = "arch/x86/boot/bzImage"

# What ``make -C OBJECTS M=DIR modules`` reads, besides the source.
_FOR_MODULES = re.compile(
    r"(Makefile|\.config|\.kernelrelease|Module\.symvers"
    r"|(include|scripts|arch/\w+/include)/.*|tools/objtool/objtool)"
)

# What would build another kernel than the key says.
_FOREIGN = ("KBUILD", "KCONFIG", "MAKE", "KC", "HOST", "LLVM", "INSTALL_", "MFLAGS", "GNUMAKE")
_FOREIGN_NAMES = frozenset(
    ("ARCH", "SUBARCH", "SRCARCH", "CROSS_COMPILE", "CC", "CPP", "LD", "AS", "AR", "NM", "CFLAGS",
     "LDFLAGS", "CPATH", "GCC_COLORS", "W", "V", "C", "O", "M", "LOCALVERSION", "KERNELRELEASE")
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Built:
    """A kernel in the cache. ``kernel`` is a bzImage, ``symbols`` the ELF file beside it;
    ``modules`` is where modules for it are built: ``make -C MODULES M=DIR modules``.
    """

    key: str
    kernel: Path
    symbols: Path
    config: Path
    modules: Path
    version: str
    features: tuple[str, ...]
    arch: str
    seconds: float
    source: str


def key_of(source: Source, features: Sequence[str], *, arch: str, compiler: str) -> str:
    """``VERSION-FEATURES-HASH``: another key, another kernel."""
    recipe = [
        FORMAT,
        source.identity,
        str(source.tree),  # it is in the debug information
        list(features),
        fragments.fragment(features, arch=arch),
        arch,
        compiler,
    ]
    digest = hashlib.sha256(json.dumps(recipe).encode()).hexdigest()[:16]
    return f"{source.version}-{'+'.join(features) or 'plain'}-{arch}-{digest}"


def build(
    source: Source,
    features: Sequence[str],
    *,
    arch: str,
    cache: Cache,
    progress: Progress = silent,
    jobs: int | None = None,
) -> Built:
    """The kernel, built if it is not in the cache; a second call only looks.

    Raises ToolMissing, ImageError with what make said, NoRoom, ConfigError.
    """
    key = key_of(source, features, arch=arch, compiler=tools.compiler())
    if cache.get(KIND, key) is None:
        tools.check()
        check_name(cache.root, "the cache")
    build = _Build(source, tuple(features), arch, cache, key, progress, jobs)
    folder = cache.make(KIND, key, build, progress=progress)
    found = read(folder)
    if found is None:
        # A power cut may keep the names of files and lose what was in them.
        progress(f"the kernel {key} in the cache is damaged: building it again")
        found = read(cache.replace(KIND, key, build, progress=progress))
        assert found is not None  # it was just written
    return found


def read(folder: Path) -> Built | None:
    """A kernel of the cache; None when its directory is damaged."""
    try:
        facts = json.loads((folder / MANIFEST).read_text())
        kernel, symbols = folder / "bzImage", folder / "vmlinux"
        if kernel.stat().st_size != facts.pop("size"):
            return None
        facts["features"] = tuple(facts["features"])
        modules = folder.parents[1] / OBJECTS / folder.name
        if not (modules / "Makefile").is_file() or not symbols.stat().st_size:
            return None
        config = folder / "config"
        return Built(kernel=kernel, symbols=symbols, config=config, modules=modules, **facts)
    except (OSError, ValueError, TypeError, KeyError):
        return None


def remove(cache: Cache, key: str) -> bool:
    """Remove a kernel with its build directory; False when there was none."""
    gone = cache.remove(KIND, key)
    shutil.rmtree(cache.root / OBJECTS / key, ignore_errors=True)
    return gone


@dataclass(frozen=True, slots=True)
class _Build:
    """Builds one kernel: call it with an empty directory."""

    source: Source
    features: tuple[str, ...]
    arch: str
    cache: Cache
    key: str
    progress: Progress
    jobs: int | None

    def __call__(self, folder: Path) -> None:
        began = time.monotonic()
        objects = self.cache.root / OBJECTS / self.key
        with _directory(objects):
            self._configure(objects)
            self._compile(objects, began)
            self._check_source()
            shutil.copyfile(objects / _IMAGE, folder / "bzImage")
            shutil.copyfile(objects / "vmlinux", folder / "vmlinux")
            shutil.copyfile(objects / ".config", folder / "config")
            (objects / "vmlinux.symvers").rename(objects / "Module.symvers")
            _keep_for_modules(objects)
        facts = asdict(
            Built(
                key=self.key,
                kernel=folder,
                symbols=folder,
                config=folder,
                modules=folder,
                version=self.source.version,
                features=self.features,
                arch=self.arch,
                seconds=round(time.monotonic() - began, 1),
                source=str(self.source.tree),
            )
        )
        for word in ("kernel", "symbols", "config", "modules"):
            del facts[word]
        facts["size"] = (folder / "bzImage").stat().st_size
        (folder / MANIFEST).write_text(json.dumps(facts, indent=2) + "\n")

    def _configure(self, objects: Path) -> None:
        self.progress("configuring")
        text = fragments.fragment(self.features, arch=self.arch)
        (objects / "fragment").write_text(text)
        self._make(objects, ["allnoconfig", f"KCONFIG_ALLCONFIG={objects / 'fragment'}"])
        config = (objects / ".config").read_text()
        if lacks := fragments.missing(config, self.features, arch=self.arch):
            raise ImageError(
                f"Linux {self.source.version} cannot be configured with "
                f"{', '.join(self.features) or 'no features'}: it does not have {', '.join(lacks)}",
                mend="an older or newer source, another compiler or fewer features may do; "
                "`pytest-hil kernel config --with …` prints what was asked for",
            )

    def _compile(self, objects: Path, began: float) -> None:
        jobs = self.jobs or len(os.sched_getaffinity(0))
        count = 0

        def line(text: str) -> None:
            nonlocal count
            # make's short form: "  CC      mm/slub.o"
            if text.startswith("  "):
                count += 1
                seconds = int(time.monotonic() - began)
                what = text.split()[-1]
                self.progress(
                    f"building: {count} steps, {seconds // 60}:{seconds % 60:02d}, {what}"
                )

        self._make(objects, [f"-j{jobs}", "bzImage", "modules_prepare"], line=line)

    def _check_source(self) -> None:
        if not self.source.unchanged():
            raise ImageError(
                f"{self.source.tree} has changed while it was built: the kernel is of no one state",
                mend="run it again",
            )

    def _make(self, objects: Path, words: list[str], line: Callable[[str], None] = silent) -> None:
        argv = ["make", "-C", str(self.source.tree), f"O={objects}", f"ARCH={self.arch}", *words]
        ended = together.run(argv, line=line, env=_environment(os.environ))
        if ended.exit_code != 0:
            raise _failed(self.source, ended, objects)


def _environment(own: Mapping[str, str]) -> dict[str, str]:
    """For make: the same kernel whoever builds it, and messages that we can read."""
    kept = {
        name: value
        for name, value in own.items()
        if name not in _FOREIGN_NAMES and not name.startswith(_FOREIGN)
    }
    return {
        **kept,
        "LC_ALL": "C",
        "LOCALVERSION": "",  # set, though empty: no "+" for what git says of the tree
        "KBUILD_BUILD_USER": "pytest-hil",
        "KBUILD_BUILD_HOST": "pytest-hil",
        "KBUILD_BUILD_TIMESTAMP": "Thu Jan  1 00:00:00 UTC 1970",
    }


@contextlib.contextmanager
def _directory(objects: Path) -> Iterator[None]:
    """An empty build directory; afterwards it is gone, unless all went well.

    Its path is in the kernel, so it cannot be a temporary one that is renamed in the end. Who
    builds is in a file beside it: those of the dead are removed by whoever builds next.
    """
    _remove_dead(objects.parent)
    owner = objects.with_name(f"{objects.name}{_OWNER}")
    _remove(objects, owner)
    objects.parent.mkdir(parents=True, exist_ok=True)
    owner.write_text(_name(os.getpid()))
    done = False
    try:
        objects.mkdir()
        yield
        done = True
    finally:
        if done:
            owner.unlink()
        else:
            _remove(objects, owner)


def _remove_dead(folder: Path) -> None:
    for owner in folder.glob(f"*{_OWNER}"):
        with contextlib.suppress(OSError, ValueError):
            pid, started, host = owner.read_text().split(" ", 2)
            if host == os.uname().nodename and process.start_time(int(pid)) != int(started):
                _remove(owner.with_name(owner.name.removesuffix(_OWNER)), owner)


def _remove(objects: Path, owner: Path) -> None:
    # The owner's file last: who is killed here leaves what the next one needs to know.
    shutil.rmtree(objects, ignore_errors=True)
    owner.unlink(missing_ok=True)


def _name(pid: int) -> str:
    """A process for good: a pid is reused, and a cache may be on several hosts."""
    return f"{pid} {process.start_time(pid)} {os.uname().nodename}"


def _keep_for_modules(objects: Path) -> None:
    """Leave only what modules are built with, and what counters are read with: gcov's notes."""
    for folder, folders, names in os.walk(objects, topdown=False):
        here = Path(folder)
        for name in names:
            kept = _FOR_MODULES.fullmatch((here / name).relative_to(objects).as_posix())
            if not kept and not name.endswith(".gcno"):
                (here / name).unlink()
        for name in folders:
            if (here / name).is_symlink():
                (here / name).unlink()
        with contextlib.suppress(OSError):
            here.rmdir()


def _failed(source: Source, ended: together.Ended, objects: Path) -> Exception:
    """What make said, as an error."""
    if any("No space left on device" in line for line in ended.said):
        return NoRoom(
            f"no room to build a kernel in {objects}",
            mend="free some disk (2 GB; with debug features 4), or put the cache elsewhere: "
            "PYTEST_HIL_CACHE=DIR",
        )
    errors = [line for line in ended.said if _ERROR.search(line)]
    said = "\n".join(f"    {line}" for line in (errors or ended.said)[-12:])
    return ImageError(
        f"Linux {source.version} in {source.tree} could not be built (make: "
        f"{describe_exit(ended.exit_code)}):\n{said}",
        mend="the first line with `error:` says what is wrong with the source",
    )
