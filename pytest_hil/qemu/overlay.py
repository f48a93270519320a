"""qcow2 overlays: what a machine writes goes there, what it was given is never touched."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from pytest_hil import process
from pytest_hil.errors import ImageError, NoRoom, ProcessFailed
from pytest_hil.qemu.hardware import DiskFormat


@dataclass(frozen=True, slots=True)
class Base:
    """What an overlay lies on."""

    path: Path
    format: DiskFormat


def create(path: Path, base: Base) -> None:
    """Make an empty overlay. Raises NoRoom when the disk is full, ImageError else."""
    command = ["qemu-img", "create", "-q", "-f", "qcow2", "-F", base.format]
    process.find("qemu-img", package="qemu-utils")
    try:
        process.run([*command, "-b", str(base.path.absolute()), str(path)])
    except ProcessFailed as error:
        if "No space left" in error.output:
            raise NoRoom(
                f"no room for the disk overlay {path}: {error.output.strip()}",
                mend="free some disk, or set TMPDIR to a larger one",
            ) from error
        raise ImageError(f"the disk image {base.path} cannot be used: {error.output}") from error


def probe_format(path: Path) -> DiskFormat:
    """``qcow2`` or ``raw``. Raises ImageError for a file that is neither, or another format.

    A raw disk whose first bytes a guest wrote may look like anything; only a qcow2 header with
    QEMU's own approval is taken for one.
    """
    process.find("qemu-img", package="qemu-utils")
    try:
        said = process.run(["qemu-img", "info", "--output=json", "-U", str(path)]).stdout
    except ProcessFailed as error:
        raise ImageError(f"the disk image {path} cannot be read: {error.output}") from error
    found = json.loads(said)["format"]
    if found not in ("qcow2", "raw"):
        raise ImageError(
            f"the disk image {path} is {found}; qcow2 and raw are supported",
            mend=f"convert it: qemu-img convert -O qcow2 {path} {path.with_suffix('.qcow2')}",
        )
    return "qcow2" if found == "qcow2" else "raw"
