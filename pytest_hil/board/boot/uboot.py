"""U-Boot (doc/usage/environment.rst and cmdline.rst of its sources)."""

from __future__ import annotations

from typing import ClassVar

from pytest_hil.board.boot.bootloader import Bootloader, Dialect


class UBoot(Bootloader):
    """Stops its autoboot, and knows hush's ``$?``."""

    dialect: ClassVar[Dialect] = Dialect(
        prompt=r"(?m)^=> \Z",
        autoboot=r"Hit any key to stop autoboot|autoboot in \d+ seconds|Press SPACE to abort",
        stop=" ",
        boot="run bootcmd",
        set="setenv {name} '{value}'",
        get="printenv {name}",
        # loadx takes blocks of 1024 bytes too.
        downloads={
            "ymodem": "loady {address}",
            "xmodem": "loadx {address}",
            "xmodem-1k": "loadx {address}",
        },
    )
