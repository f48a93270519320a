"""Devices written for Facedancer 3, exported over USB/IP: no Facedancer board, no second cable.

Facedancer asks its board for a few things (``facedancer.backends.base``): here an exporter's
transfers are the board. All of a device's handlers and coroutines run in one thread of its own,
as under Facedancer's ``emulate()``.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import Any, TypeVar

from pytest_hil.errors import InfrastructureError, NotThere
from pytest_hil.usbip.declare import DeclarationError, Setup
from pytest_hil.usbip.facedancer_pipe import ROOM, InPipe, Key, OutPipe, Pipe
from pytest_hil.usbip.loop import LoopThread
from pytest_hil.usbip.messages import Device, Direction, Interface, Speed
from pytest_hil.usbip.urb import TransferType, Urb

try:
    from facedancer.errors import EndEmulation
    from facedancer.types import DeviceSpeed, USBDirection
except ImportError as missing:
    raise InfrastructureError(
        "facedancer is not installed", mend="install it: pip install 'pytest-hil[facedancer]'"
    ) from missing

T = TypeVar("T")

_log = logging.getLogger(__name__)

_CLEAR_HALT = (0x02, 1)


class FacedancerDevice:
    """One of Facedancer's devices, to be exported as it is. A context manager; see :meth:`run`.

    ``device`` is a ``facedancer.USBDevice``, not connected to anything. It sees an import as a bus
    reset. What a handler raises stalls its transfer, is logged, and kept for :meth:`check`;
    ``EndEmulation`` and ``device.disconnect()`` unplug it. Raises DeclarationError for a device
    without a configuration (a proxy's come too late).
    """

    def __init__(self, device: Any) -> None:
        if not device.configurations:
            raise DeclarationError(
                f"{type(device).__name__} has no configuration; does its class lack "
                "@use_inner_classes_automatically?"
            )
        self.device = device
        self.errors: list[Exception] = []
        self._loop = LoopThread("hil-facedancer")
        self._unplug: Callable[[], None] = lambda: None
        self._connected = False
        self._control: deque[Urb] = deque()
        self._asked: tuple[Urb, Any] | None = None
        self._pipes: dict[Key, Pipe] = {}
        device.backend = _Board(self)

    def __repr__(self) -> str:
        one = self.device
        return f"<FacedancerDevice {one.name} {one.vendor_id:04x}:{one.product_id:04x}>"

    def __enter__(self) -> FacedancerDevice:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    # --- for the test ---

    def run(self, coroutine: Coroutine[Any, Any, T], timeout: float = 30.0) -> T:
        """Run one of the device's coroutines beside its handlers, and wait for what it returns::

            device.run(keyboard.type_string("hello"))

        Raises what it raises, NotThere after ``timeout`` seconds.
        """
        future = asyncio.run_coroutine_threadsafe(coroutine, self._loop.loop)
        try:
            return future.result(timeout)
        except TimeoutError:
            if future.done():
                raise
            future.cancel()
            raise NotThere(
                f"a coroutine of {self!r} did not end within {timeout:g} s",
                mend="is the device attached, and does a driver use it?",
            ) from None

    def check(self) -> None:
        """Raise what a handler raised first, if one did."""
        if self.errors:
            raise self.errors[0]

    def close(self) -> None:
        """Unplug and disconnect it. May be called twice."""
        self._unplug()
        done = threading.Event()
        if self._loop.soon(self._disconnect, done):
            done.wait(10)
        self._loop.close()

    # --- what the exporter calls ---

    def describe(self) -> Device:
        one = self.device
        configurations = sorted(one.configurations.values(), key=lambda each: each.number)
        triples = tuple(
            Interface(each.class_number, each.subclass_number, each.protocol_number)
            for configuration in configurations[:1]
            for each in configuration.get_interfaces()
            if each.alternate == 0
        )
        return Device(
            busid="",
            busnum=0,
            devnum=0,
            speed=_speed(one),
            vendor_id=one.vendor_id,
            product_id=one.product_id,
            bcd_device=one.device_revision,
            device_class=one.device_class,
            subclass=one.device_subclass,
            protocol=one.protocol_revision_number,
            configuration_value=0,
            configurations=len(configurations),
            interface_count=len(triples),
            interfaces=triples,
        )

    def transfer_type(self, endpoint: int, direction: Direction) -> TransferType | None:
        if endpoint == 0:
            return TransferType.CONTROL
        found = self.endpoint((endpoint, direction))
        return None if found is None else TransferType(int(found.transfer_type))

    def plugged(self, unplug: Callable[[], None]) -> None:
        self._unplug = unplug

    def imported(self) -> None:
        self._loop.soon(self._reset)

    def submit(self, urb: Urb) -> None:
        self._loop.soon(self._submit, urb)

    def cancel(self, urb: Urb) -> None:
        self._loop.soon(self._cancel, urb)

    def released(self) -> None:
        self._loop.soon(self._forget)

    # --- in the loop ---

    def endpoint(self, key: Key) -> Any:
        """Facedancer's endpoint that has this number now, or None."""
        configuration = self.device.configuration
        if configuration is None:
            return None
        return configuration.get_endpoint(key[0], USBDirection(1 if key[1] is Direction.IN else 0))

    def _reset(self) -> None:
        self._forget()
        if not self._connected:
            self._connected = True
            self.guard(self.device.connect)
        self.guard(self.device.handle_bus_reset)

    def _disconnect(self, done: threading.Event) -> None:
        self._forget()
        if self._connected:
            self._connected = False
            self.guard(self.device.disconnect)
        done.set()

    def _forget(self) -> None:
        self._control.clear()
        self._asked = None
        for pipe in self._pipes.values():
            pipe.forget()
        self._pipes.clear()

    def _submit(self, urb: Urb) -> None:
        if urb.endpoint == 0:
            self._control.append(urb)
            self._next_control()
        else:
            self._pipe((urb.endpoint, urb.direction)).submit(urb)

    def _cancel(self, urb: Urb) -> None:
        if self._asked is not None and self._asked[0] is urb:
            self._asked = None
            self._next_control()
        elif urb in self._control:
            self._control.remove(urb)
        elif (pipe := self._pipes.get((urb.endpoint, urb.direction))) is not None:
            pipe.cancel(urb)

    def _pipe(self, key: Key) -> Pipe:
        found = self._pipes.get(key)
        if found is None:
            kind: type[Pipe] = InPipe if key[1] is Direction.IN else OutPipe
            found = self._pipes[key] = kind(self, self._loop.loop, key, _speed(self.device))
        return found

    def guard(self, call: Callable[..., object], *args: object) -> bool:
        """Call something of the device's; False when it raised."""
        try:
            call(*args)
        except EndEmulation:
            self._unplug()
        except Exception as error:
            _log.exception("%r: its handler raised", self)
            self.errors.append(error)
            return False
        return True

    # Control transfers, one at a time: a device has one endpoint 0.

    def _next_control(self) -> None:
        if self._asked is not None or not self._control:
            return
        urb = self._control.popleft()
        data = b"" if urb.direction is Direction.IN else bytes(urb.data)
        request = self.device.create_request(urb.setup + data)
        self._asked = urb, request
        if not self.guard(self.device.handle_request, request):
            self._answered(lambda: urb.stall(), request)

    def _answered(self, end: Callable[[], object], request: Any = None) -> None:
        """The end of the control transfer that was asked for, unless it is another one by now."""
        if self._asked is None or not (request is None or request is self._asked[1]):
            return
        self._asked = None
        end()
        self._loop.loop.call_soon(self._next_control)

    # --- what the device calls, in any thread ---

    def do(self, call: Callable[..., object], *args: object) -> None:
        """At once in the loop, else as soon as it can."""
        if self._loop.inside:
            call(*args)
        else:
            self._loop.soon(call, *args)

    def reply(self, request: Any, data: bytes) -> None:
        if self._asked is None:
            return
        urb = self._asked[0]

        def end() -> None:
            setup = Setup.parse(urb.setup)
            if (setup.type, setup.request) == _CLEAR_HALT and setup.value == 0:
                self.clear_halt(_key(setup.index & 0xF, setup.index >> 7 & 1))
            if urb.direction is Direction.IN:
                urb.complete(data[: urb.length])
            else:
                urb.complete()

        self._answered(end, request)

    def stall(self, key: Key) -> None:
        if key[0] == 0:
            if self._asked is not None:
                urb = self._asked[0]
                self._answered(lambda: urb.stall())
        else:
            self._pipe(key).halt()

    def clear_halt(self, key: Key) -> None:
        if (pipe := self._pipes.get(key)) is not None:
            pipe.halted = False

    def send(self, number: int, data: bytes) -> None:
        pipe = self._pipe((number, Direction.IN))
        if isinstance(pipe, InPipe) and not pipe.offer(data):
            message = f"nobody polls endpoint {number} of {self!r}: {ROOM >> 20} MiB wait"
            self.errors.append(NotThere(message))

    def configured(self) -> None:
        configuration = self.device.configuration
        if configuration is None:
            return
        for interface in configuration.active_interfaces.values():
            for endpoint in interface.get_endpoints():
                if endpoint.direction == USBDirection.IN:
                    self.guard(self.device.handle_buffer_available, endpoint.number)

    def unplug(self) -> None:
        self._unplug()


class _Board:
    """What Facedancer asks of a board. The names are ``FacedancerBackend``'s."""

    def __init__(self, owner: FacedancerDevice) -> None:
        self._owner = owner

    def connect(self, usb_device: Any, **options: Any) -> None: ...

    def disconnect(self) -> None:
        self._owner.unplug()

    def reset(self) -> None: ...

    def set_address(self, address: int, defer: bool = False) -> None: ...

    def validate_configuration(self, configuration: Any) -> None: ...

    def configured(self, configuration: Any) -> None:
        self._owner.do(self._owner.configured)

    def service_irqs(self) -> None: ...

    def send_on_control_endpoint(
        self, endpoint_number: int, in_request: Any, data: bytes, blocking: bool = True
    ) -> None:
        self._owner.do(self._owner.reply, in_request, bytes(data))

    def ack_status_stage(
        self, direction: Any = None, endpoint_number: int = 0, blocking: bool = False
    ) -> None:
        if direction is None or direction == USBDirection.OUT:
            self._owner.do(self._owner.reply, None, b"")

    def send_on_endpoint(self, endpoint_number: int, data: bytes, blocking: bool = True) -> None:
        # A board waits for the host here if it shall; this thread is the one that serves it.
        self._owner.do(self._owner.send, endpoint_number, bytes(data))

    def stall_endpoint(self, endpoint_number: int, direction: Any = 0) -> None:
        self._owner.do(self._owner.stall, _key(endpoint_number, int(direction)))

    def clear_halt(self, endpoint_number: int, direction: Any) -> None:
        self._owner.do(self._owner.clear_halt, _key(endpoint_number, int(direction)))


def _key(number: int, direction: int) -> Key:
    return number, Direction.IN if direction else Direction.OUT


def _speed(device: Any) -> Speed:
    """Full speed unless it says so, which is Facedancer's default."""
    known = {
        DeviceSpeed.LOW: Speed.LOW,
        DeviceSpeed.HIGH: Speed.HIGH,
        DeviceSpeed.SUPER: Speed.SUPER,
        DeviceSpeed.SUPER_PLUS: Speed.SUPER_PLUS,
    }
    return known.get(device.device_speed, Speed.FULL)
