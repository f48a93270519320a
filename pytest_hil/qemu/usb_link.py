"""How USB devices come into a machine: commands by its agent, connections by its gateway."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from pytest_hil.qemu.hardware import USB_ADDRESS, USB_PORT
from pytest_hil.qemu.usb_gateway import Gateway
from pytest_hil.shell.agent_command import Follow
from pytest_hil.target import Completed

if TYPE_CHECKING:
    from pytest_hil.attach.link import Arrived
    from pytest_hil.qemu.guest import Guest


class GuestLink:
    """See :class:`pytest_hil.attach.link.Link`."""

    def __init__(self, guest: Guest) -> None:
        self._guest = guest
        self.name = guest.name

    @property
    def up(self) -> bool:
        return self._guest.power.read()

    def run(
        self, argv: Sequence[str], timeout: float, on_output: Callable[[int, bytes], None]
    ) -> Completed:
        return self._guest.run(argv, check=False, timeout=timeout, follow=Follow(on_output))

    def open_door(self, arrived: Arrived) -> GuestDoor:
        name = self._guest.machine.usb_name
        return GuestDoor(Gateway(name, lambda connection: arrived(connection, self.name)))

    def tell(self, kind: str, **facts: Any) -> None:
        self._guest.tell(kind, **facts)


class GuestDoor:
    """See :class:`pytest_hil.attach.link.Door`."""

    host = USB_ADDRESS
    port = USB_PORT

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    def why_not(self) -> str:
        return ""

    def close(self) -> None:
        self._gateway.close()
