"""Python, QEMU, and the programs beside them."""

from __future__ import annotations

import importlib.util
import platform
import sys

from pytest_hil import process
from pytest_hil.agent import build
from pytest_hil.cache import Cache
from pytest_hil.cli.checks.check import Finding, note, ok, problem
from pytest_hil.config import ARCHES, host_arch
from pytest_hil.errors import HilError, ImageError, ProcessFailed, ToolMissing
from pytest_hil.qemu import emulator
from pytest_hil.qemu.image.distribution import host_distribution

_OLDEST_PYTHON = (3, 11)
_LIBRARIES = {
    "pexpect": "pexpect",
    "qemu.qmp": "qemu.qmp",
    "rich": "rich",
    "zstandard": "zstandard",
}
_TIMEOUT = 10.0


def python() -> Finding:
    """Python itself, and the libraries without which no machine starts."""
    version = platform.python_version()
    if sys.version_info < _OLDEST_PYTHON:
        return problem(f"{version} is too old", "install Python 3.11 or newer")
    missing = [package for module, package in _LIBRARIES.items() if not _is_there(module)]
    if missing:
        return problem(
            f"{version}, without {', '.join(missing)}",
            f"{sys.executable} -m pip install {' '.join(missing)}",
        )
    return ok(f"{version} ({sys.executable})", version=version)


def setpriv() -> Finding:
    """Every process is started through it, so that it dies with us."""
    process.find("setpriv", package="util-linux")
    try:
        process.run(["true"], timeout=_TIMEOUT)
    except ProcessFailed as error:
        return problem(
            f"setpriv does not do what it is needed for: {error.output.strip() or error.message}",
            "install util-linux's own: apt-get install util-linux",
        )
    return ok("children die with us")


def qemu() -> Finding:
    """The host's architecture: without it there is no default target."""
    arch = host_arch()
    try:
        found = emulator.find(arch, Cache.default())
    except ToolMissing as error:
        return problem(f"{error.message}: no machine can be started", error.mend)
    return ok(
        f"{found.version} for {arch} ({found.binary})",
        version=found.version,
        binary=str(found.binary),
        accels=list(found.accels),
    )


def other_qemus() -> Finding:
    """The other architectures; nobody needs them who has no such target."""
    there, missing, broken = {}, {}, []
    for arch in (each for each in ARCHES if each != host_arch()):
        try:
            there[arch] = emulator.find(arch, Cache.default()).version
        except ToolMissing as error:
            missing[arch] = error.mend
        except HilError as error:
            broken.append(f"{arch}: {error.message}")
    text = ", ".join(f"{arch} {version}" for arch, version in there.items()) or "none"
    if missing:
        text += f"; not installed: {', '.join(missing)}"
    if broken:
        return note(f"{text}; broken: {'; '.join(broken)}", versions=there)
    return Finding("ok", text, facts={"versions": there, "missing": missing})


def qemu_img() -> Finding:
    """For targets with a disk."""
    try:
        process.find("qemu-img", package="qemu-utils")
        said = process.run(["qemu-img", "--version"], timeout=_TIMEOUT).stdout
    except ToolMissing as error:
        return note("not there: targets with a disk cannot be used", error.mend)
    return ok(said.decode(errors="replace").partition("\n")[0].removeprefix("qemu-img version "))


def apt() -> Finding:
    """What builds our own guest image."""
    without = "own kernels with an initrd, disks and images by URL work without ([image.NAME])"
    try:
        process.find("apt-get")
        found = host_distribution()
        process.run(["apt-get", "--version"], timeout=_TIMEOUT)
    except ToolMissing:
        return note("not there: the default image cannot be built here", without)
    except ImageError as error:
        return note(error.message, without)
    return ok(f"packages of {found.name} {found.release}".rstrip())


def agent() -> Finding:
    """The program in the guest: in a wheel it is there, in a checkout it is compiled."""
    wanted = build.source_hash()
    built = [arch for arch in build.TARGETS if _built_from(arch) == wanted]
    missing = [arch for arch in build.TARGETS if arch not in built]
    if not missing:
        return ok(f"there for {', '.join(built)}")
    if _is_there("ziglang"):
        text = f"to be compiled when first needed, for {', '.join(missing)}"
        return ok(text, built=built, missing=missing)
    look = problem if host_arch() in missing else note
    return look(
        f"not there for {', '.join(missing)}, and no compiler to build it",
        f"{sys.executable} -m pip install ziglang (or install pytest-hil from a wheel)",
    )


def _built_from(arch: str) -> str:
    try:
        return (build.BIN / f"hil-agent.{arch}.hash").read_text()
    except OSError:
        return ""


def _is_there(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        return False
