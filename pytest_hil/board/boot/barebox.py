"""barebox (Documentation/user of its sources)."""

from __future__ import annotations

from typing import ClassVar

from pytest_hil.board.boot.bootloader import Bootloader, Dialect


class Barebox(Bootloader):
    """Stops its countdown by ^C, which its default environment asks for."""

    dialect: ClassVar[Dialect] = Dialect(
        prompt=r"(?m)^barebox@[^\n]*:[^\n]* \Z",
        autoboot=r"to abort autoboot|stop autoboot|ctrl-c to stop",
        stop="\x03",
        boot="boot",
        set="{name}='{value}'; export {name}",
        get="printenv {name}",
    )
