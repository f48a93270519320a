"""The QEMU that is installed: its binary, version and machine types, remembered per binary."""

from __future__ import annotations

import hashlib
import re
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pytest_hil import process
from pytest_hil.cache import Cache
from pytest_hil.errors import MachineError, ToolMissing, nearest

_PACKAGES = {
    "x86_64": "qemu-system-x86",
    "aarch64": "qemu-system-arm",
    "arm": "qemu-system-arm",
    "riscv64": "qemu-system-misc",
}
# x-ignore-shared works from 4.1, -machine memory-backend= from 5.0, -action from 6.0.
OLDEST = (6, 0)


@dataclass(frozen=True, slots=True)
class Emulator:
    """One QEMU binary. ``aliases``: machine type → the versioned type that it stands for."""

    binary: Path
    arch: str
    version: str
    machines: tuple[str, ...]
    aliases: dict[str, str]
    accels: tuple[str, ...]
    fingerprint: str

    @property
    def number(self) -> tuple[int, int]:
        major, minor = self.version.split(".")[:2]
        return int(major), int(minor)

    def machine(self, name: str) -> str:
        """The versioned type for a machine name, its options kept.

        Raises MachineError with the nearest name.
        """
        name, comma, options = name.partition(",")
        found = self.aliases.get(name, name)
        if found not in self.machines:
            raise MachineError(
                f"{self.binary.name} {self.version} has no machine {name!r}: "
                f"{nearest(name, self.machines)}",
                mend=f"`{self.binary.name} -machine help` lists them all",
            )
        return found + comma + options


def find(arch: str, cache: Cache) -> Emulator:
    """The QEMU for an architecture. Raises ToolMissing, MachineError (too old, or broken)."""
    name = f"qemu-system-{arch}"
    path = shutil.which(name)
    if path is None:
        raise ToolMissing(name, package=_PACKAGES.get(arch, "qemu-system"))
    binary = Path(path).resolve()
    status = binary.stat()
    identity = f"1:{binary}:{status.st_size}:{status.st_mtime_ns}:{status.st_ino}"
    key = hashlib.sha256(identity.encode()).hexdigest()[:24]

    def ask() -> dict[str, Any]:
        return asdict(_ask(binary, arch, key)) | {"binary": str(binary)}

    facts = cache.remember("emulators", f"{arch}-{key}", ask)
    emulator = Emulator(
        **facts
        | {
            "binary": Path(facts["binary"]),
            "machines": tuple(facts["machines"]),
            "accels": tuple(facts["accels"]),
        }
    )
    if emulator.number < OLDEST:
        raise MachineError(
            f"{binary} is QEMU {emulator.version}; {OLDEST[0]}.{OLDEST[1]} or newer is needed",
            mend="install a newer QEMU",
        )
    return emulator


def _ask(binary: Path, arch: str, fingerprint: str) -> Emulator:
    def text(*options: str) -> str:
        return process.run([str(binary), *options], timeout=30).stdout.decode(errors="replace")

    said = text("--version")
    version = re.search(r"version (\d+\.\d+\.\d+)", said)
    if version is None:
        raise MachineError(f"{binary} --version says no version: {said.strip()[:200]!r}")
    machines, aliases = [], {}
    for line in text("-machine", "help").splitlines()[1:]:
        name, _, rest = line.partition(" ")
        machines.append(name)
        if alias := re.search(r"\(alias of (\S+)\)", rest):
            aliases[name] = alias[1]
    accels = tuple(line.strip() for line in text("-accel", "help").splitlines()[1:] if line.strip())
    return Emulator(binary, arch, version[1], tuple(machines), aliases, accels, fingerprint)
