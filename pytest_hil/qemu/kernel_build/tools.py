"""What a kernel is built with, and whether it is here."""

from __future__ import annotations

import shutil
from pathlib import Path

from pytest_hil import process
from pytest_hil.errors import ToolMissing

TOOLS = {
    "gcc": "gcc",
    "ld": "binutils",
    "make": "make",
    "flex": "flex",
    "bison": "bison",
    "bc": "bc",
    "perl": "perl",
    "xz": "xz-utils",
}
"""Programs: their Debian packages."""

HEADERS = {"gelf.h": "libelf-dev"}
"""… and headers. No certificates, signatures or BTF are made: no libssl-dev, no pahole."""


def compiler() -> str:
    """What gcc calls itself, with its version. Raises ToolMissing."""
    if shutil.which("gcc") is None:
        check()
    said = process.run(["gcc", "--version"]).stdout
    return said.decode(errors="replace").partition("\n")[0].strip()


def check() -> None:
    """Raise ToolMissing that names all that is missing, and the line that installs it."""
    missing = {tool: package for tool, package in TOOLS.items() if shutil.which(tool) is None}
    for header, package in HEADERS.items():
        if not _is_there(header):
            missing[f"<{header}>"] = package
    if missing:
        packages = " ".join(sorted(set(missing.values())))
        raise ToolMissing(
            ", ".join(missing), mend=f"a kernel cannot be built without: apt-get install {packages}"
        )


def _is_there(header: str) -> bool:
    if shutil.which("gcc") is None:
        return Path("/usr/include", header).exists()
    argv = ["gcc", "-E", "-x", "c", "-include", header, "/dev/null"]
    return process.run(argv, check=False).returncode == 0
