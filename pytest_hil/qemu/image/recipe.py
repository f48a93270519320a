"""What a debian image is made from, as one key: another key, another image."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

from pytest_hil.config import DebianImage
from pytest_hil.errors import ImageError
from pytest_hil.qemu.image.distribution import Distribution
from pytest_hil.qemu.image.manifest import FORMAT
from pytest_hil.qemu.image.sums import Sums


def recipe_key(
    spec: DebianImage, *, arch: str, agent: Path, distribution: Distribution, sums: Sums
) -> str:
    """``NAME-ARCH-HASH``. Versions of packages are not in it: an image is built once and stays
    the same until somebody asks for a new one.
    """
    recipe = {
        "format": FORMAT,
        "builder": _builder(),
        "distribution": [distribution.name, distribution.release],
        "arch": arch,
        "packages": sorted(spec.packages),
        "modules": spec.modules,
        "startup": spec.startup,
        "append": spec.append,
        "agent": sums.sha256(agent),
        "kernel": sums.sha256(spec.kernel) if spec.kernel is not None else "",
        "kernel_modules": _directory(spec.kernel_modules) if spec.kernel_modules else "",
        "files": [
            [file.path, file.mode, _contents(file.source, sums)]
            for file in sorted(spec.files, key=lambda file: file.path)
        ],
    }
    text = json.dumps(recipe, sort_keys=True)
    name = re.sub(r"[^A-Za-z0-9_.]", "_", spec.name)
    return f"{name}-{arch}-{hashlib.sha256(text.encode()).hexdigest()[:16]}"


def _builder() -> str:
    """A hash of the code that builds: what it makes may change when it does."""
    total = hashlib.sha256()
    for path in sorted(Path(__file__).parent.iterdir()):
        if path.suffix in (".py", ".sh"):
            total.update(path.read_bytes())
    return total.hexdigest()


def _contents(path: Path, sums: Sums) -> list[list[object]]:
    """Mode and sum of a file, or of all files of a directory."""
    try:
        files = sorted(path.rglob("*")) if path.is_dir() else [path]
        return [
            [str(file.relative_to(path)), file.lstat().st_mode, _one(file, sums)] for file in files
        ]
    except OSError as error:
        raise ImageError(f"{path} cannot be read: {error.strerror}") from error


def _one(path: Path, sums: Sums) -> str:
    if path.is_symlink():
        return str(path.readlink())
    return sums.sha256(path) if path.is_file() else ""


def _directory(path: Path) -> str:
    """A directory of kernel modules by names, sizes and times: hundreds of MB are not read."""
    total = hashlib.sha256()
    for file in sorted(path.rglob("*.ko*")):
        state = file.stat()
        total.update(f"{file.relative_to(path)} {state.st_size} {state.st_mtime_ns}\n".encode())
    return total.hexdigest()
