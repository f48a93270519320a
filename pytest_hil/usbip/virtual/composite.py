"""Several virtual devices in one: each becomes a function of a composite device."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from pytest_hil.usbip.declare import DeclarationError
from pytest_hil.usbip.descriptors import (
    Association,
    Configuration,
    EndpointDescriptor,
    InterfaceDescriptor,
    Kind,
)
from pytest_hil.usbip.device import Setup, VirtualDevice
from pytest_hil.usbip.messages import Direction, Speed
from pytest_hil.usbip.pipe import Pipe
from pytest_hil.usbip.urb import TransferType, Urb, refuse


class Composite(VirtualDevice):
    """``Composite(Keyboard(), SerialPort())``: their interfaces and endpoints are renumbered.

    The parts are used as ever: ``keyboard.type("x")``. Raises DeclarationError when they do not
    fit together: they are of different speeds, or have over 15 endpoints a direction.
    """

    product_id = 0x0004
    product = "Composite"
    device_class, subclass, protocol = 0xEF, 2, 1

    def __init__(self, *parts: VirtualDevice, product: str = "", serial_number: str = "") -> None:
        if not parts:
            raise DeclarationError("Composite: it has no parts")
        speeds = {part.speed for part in parts}
        if len(speeds) > 1:
            names = ", ".join(f"{type(part).__name__} {part.speed.name}" for part in parts)
            raise DeclarationError(f"Composite: its parts are of different speeds: {names}")
        self.parts = parts
        self.speed: Speed = parts[0].speed
        self.product = product or type(self).product
        self.serial_number = serial_number
        # New number → whose, and its own number there; new address → the same.
        self._interfaces: dict[int, tuple[VirtualDevice, int]] = {}
        self._endpoints: dict[int, tuple[VirtualDevice, int]] = {}
        super().__init__()

    def _describe_configuration(self) -> Configuration:
        return _Joined(self.parts, self._interfaces, self._endpoints).configuration

    # --- what the exporter calls, handed to the part that it means ---

    def plugged(self, unplug: Callable[[], None]) -> None:
        super().plugged(unplug)
        for part in self.parts:
            part.plugged(unplug)

    def imported(self) -> None:
        super().imported()
        for part in self.parts:
            part.imported()

    def released(self) -> None:
        super().released()
        for part in self.parts:
            part.released()

    def transfer_type(self, endpoint: int, direction: Direction) -> TransferType | None:
        if endpoint == 0:
            return TransferType.CONTROL
        found = self._endpoints.get(endpoint | direction << 7)
        return None if found is None else found[0].transfer_type(found[1] & 0xF, direction)

    def submit(self, urb: Urb) -> None:
        if urb.endpoint == 0:
            super().submit(urb)
            return
        found = self._endpoints.get(urb.address)
        if found is None:
            refuse(urb)
        else:
            found[0].submit_to(found[1], urb)

    def cancel(self, urb: Urb) -> None:
        found = self._endpoints.get(urb.address)
        if found is not None:
            found[0].cancel_at(found[1], urb)

    def control(self, setup: Setup, data: bytes) -> bytes | None:
        recipient = setup.type & 0x1F
        if recipient == 1 and (found := self._interfaces.get(setup.index & 0xFF)):
            part, number = found
            own = replace(setup, index=setup.index & 0xFF00 | number)
            return part.locked_control(own, data)
        if recipient == 2 and setup.index & 0xF:
            if (there := self._endpoints.get(setup.index & 0x8F)) is None:
                return None
            part, address = there
            return part.locked_control(replace(setup, index=address), data)
        if setup.type & 0x60 and recipient == 0:
            return self._first_that_knows(setup, data)
        return super().control(setup, data)

    def _first_that_knows(self, setup: Setup, data: bytes) -> bytes | None:
        for part in self.parts:
            if (answer := part.locked_control(setup, data)) is not None:
                return answer
        return None

    def _configure(self, value: int) -> None:
        super()._configure(value)
        for part in self.parts:
            part.locked_control(Setup(0, 9, part.configuration.value if value else 0, 0, 0), b"")

    def on_clear_halt(self, pipe: Pipe) -> None:
        raise AssertionError("its pipes are those of its parts")


class _Joined:
    """Renumbers the parts' interfaces and endpoints, in their order."""

    def __init__(
        self,
        parts: Sequence[VirtualDevice],
        interfaces: dict[int, tuple[VirtualDevice, int]],
        endpoints: dict[int, tuple[VirtualDevice, int]],
    ) -> None:
        self._interfaces = interfaces
        self._endpoints = endpoints
        every: list[InterfaceDescriptor] = []
        associations: list[Association] = []
        for part in parts:
            base = len(interfaces)
            own = part.configuration
            for number in own.numbers:
                interfaces[base + number] = (part, number)
            addresses = self._addresses(part)
            every += [self._interface(one, base, addresses) for one in own.interfaces]
            associations += [replace(one, first=base + one.first) for one in own.associations]
            if len(own.numbers) > 1 and not own.associations:
                first = own.interfaces[0]
                triple = (first.interface_class, first.subclass, first.protocol)
                associations.append(Association(base, len(own.numbers), *triple))
        power = sum(part.configuration.max_power for part in parts)
        self.configuration = Configuration(
            tuple(every), max_power=min(power, 250), associations=tuple(associations)
        )

    def _addresses(self, part: VirtualDevice) -> dict[int, int]:
        """A part's endpoints → new addresses, the same in all alternate settings."""
        found: dict[int, int] = {}
        for interface in part.configuration.interfaces:
            for one in interface.endpoints:
                if one.address in found:
                    continue
                way = one.address & 0x80
                taken = [address & 0xF for address in self._endpoints if address & 0x80 == way]
                number = max(taken, default=0) + 1
                if number > 15:
                    raise DeclarationError(
                        f"Composite: {type(part).__name__} finds no endpoint free: 15 in each "
                        "direction are there"
                    )
                found[one.address] = way | number
                self._endpoints[way | number] = (part, one.address)
        return found

    def _interface(
        self, one: InterfaceDescriptor, base: int, addresses: dict[int, int]
    ) -> InterfaceDescriptor:
        endpoints: list[EndpointDescriptor] = [
            replace(endpoint, address=addresses[endpoint.address]) for endpoint in one.endpoints
        ]
        return replace(
            one,
            number=base + one.number,
            endpoints=tuple(endpoints),
            extra=_moved(one.extra, base),
            string=0,
        )


def _moved(extra: bytes, base: int) -> bytes:
    """Class-specific descriptors that name interfaces: CDC's union and call management."""
    data = bytearray(extra)
    at = 0
    while at + 2 < len(data) and data[at] >= 3:
        if data[at + 1] == Kind.CLASS_INTERFACE and data[at + 2] == 6:
            for place in range(at + 3, at + data[at]):
                data[place] += base
        elif data[at + 1] == Kind.CLASS_INTERFACE and data[at + 2] == 1 and data[at] >= 5:
            data[at + 4] += base
        at += data[at]
    return bytes(data)
