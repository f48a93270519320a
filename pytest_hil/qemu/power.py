"""The power switch of a machine."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pytest_hil.qemu.guest import Guest


class MachinePower:
    """What a :class:`Guest` has for its ``power``."""

    def __init__(self, guest: Guest) -> None:
        self._guest = guest

    def on(self) -> None:
        """Switch it on and wait until it is ready; nothing if it is on."""
        self._guest.switch_on()

    def off(self) -> None:
        """Take its power away, with no shutdown: what the guest had not written is lost."""
        self._guest.switch_off()

    def cycle(self) -> None:
        """Off, on, ready."""
        self.off()
        self.on()

    def read(self) -> bool:
        """Whether it is on."""
        machine = self._guest.machine
        return machine.powered and machine.died() is None
