"""qcow2 overlays: what a machine writes goes there, what it was given is never touched."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pytest_hil import process
from pytest_hil.errors import ImageError, NoRoom, ProcessFailed
from pytest_hil.qemu import runtime
from pytest_hil.qemu.hardware import Disk, DiskFormat


@dataclass(frozen=True, slots=True)
class Base:
    """What an overlay lies on."""

    path: Path
    format: DiskFormat


@dataclass(slots=True)
class Overlays:
    """The overlays of one machine's disks, in a runtime directory of their own."""

    paths: list[Path] = field(default_factory=list)
    _directory: Path | None = None

    @classmethod
    def on(cls, bases: Sequence[Base]) -> Overlays:
        """New overlays, one a base. Raises NoRoom, ImageError."""
        if not bases:
            return cls()
        made = cls([], runtime.directory("disk"))
        try:
            for base in bases:
                made.paths.append(made.new_path())
                create(made.paths[-1], base)
        except BaseException:
            made.remove()
            raise
        return made

    @classmethod
    def on_disks(cls, disks: Sequence[Disk]) -> Overlays:
        """New overlays on a machine's own disks."""
        return cls.on([Base(disk.path, disk.format) for disk in disks])

    def new_path(self) -> Path:
        """Where one more overlay can be put."""
        assert self._directory is not None
        return self._directory / f"{len(list(self._directory.iterdir()))}.qcow2"

    def remove(self) -> None:
        """Remove them all. May be called twice."""
        directory, self._directory = self._directory, None
        self.paths.clear()
        if directory is not None:
            runtime.remove(directory)


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


def flatten(written: Path, base: Base, out: Path) -> None:
    """Copy what a chain of overlays holds beyond ``base`` into one overlay on it.

    ``written`` may be open in a QEMU that does not write it. Raises NoRoom, ImageError.
    """
    under = ["-F", base.format, "-b", str(base.path.absolute())]
    try:
        process.run(
            ["cp", "--reflink=auto", "--sparse=always", str(written), str(out)], timeout=600
        )
        # Brings in what the layers between hold: convert -B would copy the topmost alone.
        process.run(["qemu-img", "rebase", "-f", "qcow2", *under, str(out)], timeout=600)
    except ProcessFailed as error:
        out.unlink(missing_ok=True)
        if "No space left" in error.output:
            raise NoRoom(
                f"no room to save the disk {out}: {error.output.strip()}", mend="free some disk"
            ) from error
        raise ImageError(f"the disk {written} cannot be saved: {error.output}") from error


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
