"""What no good client sends: whatever comes of it, the next client must be served."""

from __future__ import annotations

import struct

from pytest_hil.usbip.conformance.check import Group, NotApplicable
from pytest_hil.usbip.conformance.client import (
    Answer,
    Attached,
    Client,
    Wire,
    endpoint,
    is_loopback,
    setup,
    shown,
    silent,
)
from pytest_hil.usbip.conformance.operations import SERVES
from pytest_hil.usbip.messages import (
    OP_SIZE,
    URB_SIZE,
    Command,
    Direction,
    IsoPacket,
    ReqDevlist,
    ReqImport,
    Submit,
    Unlink,
)
from pytest_hil.usbip.urb import TransferType

RX = "drivers/usb/usbip/stub_rx.c"

HOSTILE = Group("hostile", serves_on=True)
check = HOSTILE.check

_PENDING = 32
_GET_DEVICE = setup(0x80, 6, 0x0100, 0, 18)
_HUGE = 2**31 - 1


def _reaction(client: Client, wire: Wire) -> bytes:
    """Whatever it does about it; its first reply."""
    got, ended = wire.rest(URB_SIZE)
    client.expect(True, "any reaction", f"{shown(got)}, then {'the end' if ended else 'silence'}")
    return got


def _no_success(client: Client, wire: Wire) -> None:
    got = _reaction(client, wire)
    done = len(got) == URB_SIZE and Answer(got).command == Command.RET_SUBMIT
    client.expect(not done or Answer(got).status != 0, "no reply of status 0", got)


def _head(attached: Attached, **fields: int) -> bytes:
    """A SUBMIT of GET_DESCRIPTOR(device), with some fields as they cannot be."""
    known = {
        **{"command": Command.SUBMIT, "seqnum": 77, "devid": attached.device.devid},
        **{"direction": 1, "endpoint": 0, "flags": 0, "length": 18},
        **{"start": 0, "packets": 0, "interval": 0},
    }
    numbers = [value & 0xFFFFFFFF for value in (known | fields).values()]
    return struct.pack(">10I8s", *numbers, _GET_DEVICE)


@check("submit-first", "a SUBMIT before any import", SERVES)
def _(client: Client) -> None:
    wire = client.wire()
    wire.send(Submit(1, 0x00010002, Direction.IN, 0, 18, setup=_GET_DEVICE).pack())
    _no_success(client, wire)


@check("unlink-first", "an UNLINK before any import", SERVES)
def _(client: Client) -> None:
    wire = client.wire()
    wire.send(Unlink(2, 0x00010002, 1).pack())
    _reaction(client, wire)


@check("import-twice", "a second import, or a list, on a connection that has a device", SERVES)
def _(client: Client) -> None:
    for request in (ReqImport(client.busid).pack(), ReqDevlist().pack()):
        attached = client.imported()
        attached.wire.send(request.ljust(URB_SIZE, b"\0"))
        _reaction(client, attached.wire)
        client.close()


@check("devid", "a URB for another device is not done", f"{RX}, valid_request")
def _(client: Client) -> None:
    attached = client.imported()
    attached.wire.send(_head(attached, devid=attached.device.devid ^ 0x00FF00FF))
    _no_success(client, attached.wire)


@check("command", "a command that there is not", f"{RX}, stub_rx_pdu")
def _(client: Client) -> None:
    for command in (0, 5, 0xFFFFFFFF):
        attached = client.imported()
        attached.wire.send(_head(attached, command=command))
        _no_success(client, attached.wire)
        client.close()


@check("reply", "a client that sends replies", f"{RX}, stub_rx_pdu")
def _(client: Client) -> None:
    for command in (Command.RET_SUBMIT, Command.RET_UNLINK):
        attached = client.imported()
        attached.wire.send(_head(attached, command=command))
        _no_success(client, attached.wire)
        client.close()


@check("direction", "a direction that is neither 0 nor 1", SERVES)
def _(client: Client) -> None:
    attached = client.imported()
    attached.wire.send(_head(attached, direction=0x80))
    _reaction(client, attached.wire)


@check("endpoint", "an endpoint over 15", f"{RX}, get_pipe: CVE-2017-16912")
def _(client: Client) -> None:
    for number in (16, 0x80, 0xFFFFFFFF):
        attached = client.imported()
        attached.wire.send(_head(attached, endpoint=number))
        _no_success(client, attached.wire)
        client.close()


@check("seqnum-twice", "a number that is in flight already", SERVES)
def _(client: Client) -> None:
    attached, found = client.configured()
    submit = attached.made(silent(attached, found), length=8)
    attached.wire.send(submit.pack() * 2)
    _reaction(client, attached.wire)


@check("length-negative", "a negative length", f"{RX}, get_pipe and stub_recv_cmd_submit")
def _(client: Client) -> None:
    for direction in Direction:
        for length in (-1, -(2**31)):
            attached = client.imported()
            attached.wire.send(_head(attached, direction=direction, length=length))
            _no_success(client, attached.wire)
            client.close()


@check(
    "length-unsent",
    "2 GiB are announced and never sent",
    f"{RX}, stub_recv_cmd_submit: CVE-2017-16913",
)
def _(client: Client) -> None:
    attached = client.imported()
    attached.wire.send(_head(attached, direction=0, length=_HUGE))
    _no_success(client, attached.wire)


@check(
    "length-unsent-bulk",
    "2 GiB are announced to a bulk OUT and never sent",
    f"{RX}, stub_recv_cmd_submit: CVE-2017-16913",
)
def _(client: Client) -> None:
    attached, found = client.configured()
    one = endpoint(found, TransferType.BULK, Direction.OUT)
    if one is None:
        raise NotApplicable("the device has no bulk OUT endpoint")
    attached.wire.send(_head(attached, direction=0, endpoint=one.number, length=_HUGE) + bytes(100))
    _no_success(client, attached.wire)


@check("length-asked", "2 GiB are asked for: refused, or what there is", SERVES)
def _(client: Client) -> None:
    attached = client.imported()
    attached.wire.send(_head(attached, length=_HUGE))
    got = _reaction(client, attached.wire)
    small = len(got) < URB_SIZE or Answer(got).actual <= 18
    client.expect(small, "an actual_length of at most 18", got)


@check(
    "iso-count",
    "2 thousand million packets are announced",
    f"{RX}, get_pipe: USBIP_MAX_ISO_PACKETS",
)
def _(client: Client) -> None:
    attached, number = _isochronous(client)
    for packets in (_HUGE, -2):
        attached.wire.send(
            _head(attached, direction=0, endpoint=number, length=8, packets=packets) + bytes(24),
            may_fail=True,
        )
    _no_success(client, attached.wire)


@check(
    "iso-outside",
    "a packet that lies outside of its buffer",
    "drivers/usb/usbip/usbip_common.c, usbip_recv_iso",
)
def _(client: Client) -> None:
    attached, number = _isochronous(client)
    packets = [IsoPacket(0, 8), IsoPacket(0xFFFFFFF0, 0x20)]
    attached.submit(number, data=bytes(8), iso=packets)
    _no_success_of_iso(client, attached)


def _no_success_of_iso(client: Client, attached: Attached) -> None:
    got = _reaction(client, attached.wire)
    done = len(got) == URB_SIZE and Answer(got).actual > 8
    client.expect(not done, "no actual_length over the buffer's", got)


def _isochronous(client: Client) -> tuple[Attached, int]:
    """The device, and an isochronous OUT endpoint in use. Raises NotApplicable."""
    attached, found = client.configured()
    for interface in found.interfaces:
        for one in interface.endpoints:
            if one.type is TransferType.ISO and one.direction is Direction.OUT:
                done = attached.control(1, 11, interface.alternate, interface.number)
                client.expect(done.status == 0, "SET_INTERFACE to succeed", done)
                return attached, one.number
    raise NotApplicable("the device has no isochronous OUT endpoint")


@check("half-urb", "half a URB's header, and then silence", SERVES)
def _(client: Client) -> None:
    attached = client.imported()
    attached.wire.send(_head(attached)[:29])
    raw, _devices = client.devlist()
    client.expect(len(raw) > OP_SIZE, "others are served meanwhile", raw[:OP_SIZE])


@check("half-data", "half of an OUT's data, and then the end", SERVES)
def _(client: Client) -> None:
    for reset in (False, True):
        attached = client.imported()
        attached.wire.send(_head(attached, direction=0, length=4096) + bytes(100))
        attached.wire.close(reset=reset)
    client.expect(True, "the device is free again", "the end")


@check("pending", f"the end with {_PENDING} transfers in flight, then imported again", SERVES)
def _(client: Client) -> None:
    for reset in (False, True):
        attached, found = client.configured()
        address = silent(attached, found)
        for _number in range(_PENDING):
            attached.submit(address, length=64)
        attached.wire.close(reset=reset)
    attached, found = client.configured()
    attached.fence()
    more, _ended = attached.wire.finish()
    client.expect(not more, "nothing of the client before", more)


@check("deaf", "a client that asks and asks, and reads nothing", SERVES)
def _(client: Client) -> None:
    attached = client.imported()
    burst = b"".join(attached.asked().pack() for _ in range(500))
    for _number in range(8):
        attached.wire.send(burst, may_fail=True)  # it may well stop reading
    raw, _devices = client.devlist()
    client.expect(len(raw) > OP_SIZE, "others are served meanwhile", raw[:OP_SIZE])


@check("unlinks", "a hundred unlinks of nothing", SERVES)
def _(client: Client) -> None:
    attached = client.imported()
    unlinks = [attached.unlinking(0x70000000 + number) for number in range(100)]
    attached.wire.send(b"".join(one.pack() for one in unlinks))
    got = [attached.answer().seqnum for _ in unlinks]
    wanted = [one.seqnum for one in unlinks]
    client.expect(sorted(got) == wanted, "a reply to each", f"{len(set(got))} of {len(wanted)}")


@check("junk", "bytes that are no URB, where one is due", SERVES)
def _(client: Client) -> None:
    for junk in (b"\xff" * 480, b"GET / HTTP/1.1\r\n\r\n" * 30):
        attached = client.imported()
        attached.wire.send(junk, may_fail=True)
        _reaction(client, attached.wire)
        client.close()


@check("setup-lies", "a control OUT whose wLength is not its buffer's length", SERVES)
def _(client: Client) -> None:
    attached = client.configured()[0]
    if not is_loopback(attached.device):
        raise NotApplicable("no standard request brings data to a device: needs 1209:0001")
    attached.submit(0x00, data=bytes(16), setup=setup(0x40, 0x5B, 0, 0, 0xFFFF))
    _reaction(client, attached.wire)
