"""The UEFI shell (UEFI Shell Specification 2.2)."""

from __future__ import annotations

from typing import ClassVar

from pytest_hil.board.boot.bootloader import Bootloader, Dialect


class UefiShell(Bootloader):
    """Skips the wait for startup.nsh, and has its prompt."""

    state: ClassVar[str] = "uefi"
    dialect: ClassVar[Dialect] = Dialect(
        prompt=r"(?:Shell|FS\d+:[^>\n]*)> \Z",
        autoboot=r"Press ESC in \d+ seconds to skip|any other key to continue",
        stop="\x1b",
        boot="exit",
        set='set -v {name} "{value}"',
        get="set {name}",
        # It has no separator of commands, and an escape character between the nonce's parts. Not
        # every command sets the status (EDK II's set does not), so one that does comes first.
        lines=("ver > NUL", "{command}", "echo {one}^{other} %lasterror%"),
    )
