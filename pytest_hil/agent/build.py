"""The agent's binaries: compiled by the ``ziglang`` package's compiler, for every architecture.

A wheel brings them all. In a checkout they are made when they are asked for, in a second, except
for the first time, when zig compiles its C library (half a minute for each architecture).
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import importlib.util
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from pytest_hil.errors import ImageError, ProcessFailed
from pytest_hil.process import run
from pytest_hil.progress import Progress, silent

HERE = Path(__file__).parent
BIN = HERE / "bin"

TARGETS = {
    "x86_64": ("-target", "x86_64-linux-musl"),
    "aarch64": ("-target", "aarch64-linux-musl"),
    "arm": ("-target", "arm-linux-musleabihf"),
    "riscv64": ("-target", "riscv64-linux-musl"),
}
"""QEMU's name of an architecture: what makes zig compile for it."""

_FLAGS = ("-std=gnu11", "-O2", "-static", "-s", "-Wall", "-Wextra", "-Werror")
_TIMEOUT = 900.0


def source_hash() -> str:
    """16 hexadecimal digits: the agent's build id. Changes when a source or a flag does."""
    digest = hashlib.sha256(repr((TARGETS, _FLAGS)).encode())
    for source in _sources("*.[ch]"):
        digest.update(source.name.encode() + b"\0" + source.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


def binary(arch: str, *, progress: Progress = silent) -> Path:
    """The agent for an architecture; compiled first if it is missing or older than its sources.

    Raises ImageError, saying what mends it.
    """
    if arch not in TARGETS:
        raise ImageError(f"there is no agent for {arch}", mend=f"known: {', '.join(TARGETS)}")
    path, wanted = BIN / f"hil-agent.{arch}", source_hash()
    if _built_from(path) == wanted:
        return path
    if importlib.util.find_spec("ziglang") is None:
        state = "older than its sources" if path.exists() else "not there"
        raise ImageError(
            f"the agent for {arch} ({path}) is {state}, and there is no compiler to build it",
            mend=f"install the compiler: {sys.executable} -m pip install ziglang",
        )
    try:
        BIN.mkdir(exist_ok=True)
        with _lock(BIN):
            if _built_from(path) != wanted:
                progress(f"compiling the agent for {arch} (the first time takes half a minute)")
                build(arch, path)
    except OSError as error:
        raise ImageError(
            f"the agent for {arch} cannot be built in {BIN}: {error.strerror}",
            mend="make it writable, or install pytest-hil from a wheel, which brings the agent",
        ) from error
    return path


def is_built(arch: str) -> bool:
    """Whether :func:`binary` has nothing to compile."""
    return arch in TARGETS and _built_from(BIN / f"hil-agent.{arch}") == source_hash()


def build(arch: str, out: Path) -> None:
    """Compile the agent to ``out``, published by rename with its hash beside it."""
    build_id = source_hash()
    with tempfile.TemporaryDirectory(prefix=".hil-agent-", dir=out.parent) as temporary:
        made = Path(temporary) / "hil-agent"
        command = [sys.executable, "-m", "ziglang", "cc", *TARGETS[arch], *_FLAGS]
        command += [f'-DBUILD_ID="{build_id}"', f'-DARCH="{arch}"', "-o", str(made)]
        try:
            run([*command, *map(str, _sources("*.c"))], timeout=_TIMEOUT)
        except ProcessFailed as failed:
            raise ImageError(f"the agent for {arch} could not be compiled: {failed}") from failed
        made.chmod(0o755)
        # A reader between the two finds a hash that does not fit, and waits for our lock.
        _hash_file(out).unlink(missing_ok=True)
        made.replace(out)
        hash_file = Path(temporary) / "hash"
        hash_file.write_text(build_id)
        hash_file.replace(_hash_file(out))


def _sources(pattern: str) -> list[Path]:
    return sorted(HERE.glob(pattern))


def _hash_file(path: Path) -> Path:
    return path.with_name(f"{path.name}.hash")


def _built_from(path: Path) -> str:
    """The hash that a binary was built from; "" when there is none."""
    try:
        return _hash_file(path).read_text() if path.exists() else ""
    except OSError:
        return ""


@contextlib.contextmanager
def _lock(directory: Path) -> Iterator[None]:
    """One builder at a time; the kernel frees it when its holder dies."""
    fd = os.open(directory, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)
