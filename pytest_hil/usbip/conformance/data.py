"""Data through every kind of endpoint: needs a device that gives back what it gets.

That is 1209:0001, ``pytest_hil.usbip.virtual.vendor.Loopback``; with others, nothing here applies.
"""

from __future__ import annotations

from pytest_hil.usbip.conformance.check import Group, NotApplicable
from pytest_hil.usbip.conformance.client import Answer, Client, is_loopback, shown
from pytest_hil.usbip.conformance.operations import DOC
from pytest_hil.usbip.conformance.urbs import ACTUAL, RET_SUBMIT
from pytest_hil.usbip.descriptors import InterfaceDescriptor
from pytest_hil.usbip.messages import Direction, IsoPacket
from pytest_hil.usbip.urb import TransferType

ISO = "drivers/usb/usbip/usbip_common.c, usbip_recv_iso and usbip_pad_iso"
SUBMIT = f"{DOC}, USBIP_CMD_SUBMIT"

DATA = Group("data")
check = DATA.check

_ISO_PACKETS = 8
_DEPTH = 16


class _Pair:
    """An OUT endpoint, and the IN where its data comes back."""

    def __init__(self, client: Client, kind: TransferType) -> None:
        self.attached, found = client.configured()
        if not is_loopback(self.attached.device):
            device = self.attached.device
            raise NotApplicable(
                f"{device.vendor_id:04x}:{device.product_id:04x} does not give back what it gets: "
                "needs 1209:0001 (`pytest-hil usbip export loopback`)"
            )
        for interface in found.interfaces:
            if self._find(interface, kind):
                return
        raise NotApplicable(f"the device has no pair of {kind.name.lower()} endpoints")

    def _find(self, interface: InterfaceDescriptor, kind: TransferType) -> bool:
        ways = {
            way: [one for one in interface.endpoints if (one.type, one.direction) == (kind, way)]
            for way in Direction
        }
        if not ways[Direction.OUT] or not ways[Direction.IN]:
            return False
        self.out = ways[Direction.OUT][0].address
        self.back = ways[Direction.IN][0].address
        self.payload = ways[Direction.OUT][0].payload
        if interface.alternate:
            self.attached.control(1, 11, interface.alternate, interface.number)
        return True

    def send(self, data: bytes) -> Answer:
        return self.attached.do(self.out, data=data)

    def read(self, length: int) -> Answer:
        return self.attached.do(self.back, length=length)


def _pattern(size: int) -> bytes:
    return bytes(number * 7 % 251 for number in range(size))


def _round_trip(client: Client, pair: _Pair, size: int, room: int) -> None:
    data = _pattern(size)
    sent = pair.send(data)
    client.expect((sent.status, sent.actual) == (0, size), f"status 0, {size} bytes sent", sent)
    got = pair.read(room)
    client.expect(
        got.status == 0 and got.data == data, f"{shown(data)} back, status 0", shown(got.data)
    )


@check("bulk", "bulk: what goes out comes back", SUBMIT)
def _(client: Client) -> None:
    pair = _Pair(client, TransferType.BULK)
    for size in (1, pair.payload, pair.payload * 3):
        _round_trip(client, pair, size, size)


@check("bulk-large", "bulk: 256 KiB in one transfer", SUBMIT)
def _(client: Client) -> None:
    _round_trip(client, _Pair(client, TransferType.BULK), 2**18, 2**18)


@check("bulk-short", "bulk: a short packet ends an IN before its buffer is full", ACTUAL)
def _(client: Client) -> None:
    pair = _Pair(client, TransferType.BULK)
    for size in (1, pair.payload - 1, pair.payload + 1):
        _round_trip(client, pair, size, 4 * pair.payload)


@check("bulk-zero", "bulk: a zero-length OUT comes back as a zero-length IN", "USB 2.0, 5.8.3")
def _(client: Client) -> None:
    pair = _Pair(client, TransferType.BULK)
    _round_trip(client, pair, 0, 64)
    _round_trip(client, pair, 5, 64)


@check("bulk-order", f"bulk: {_DEPTH} OUTs in flight come back in their order", "USB 2.0, 5.8")
def _(client: Client) -> None:
    pair = _Pair(client, TransferType.BULK)
    blocks = [bytes([number]) * (number + 1) for number in range(_DEPTH)]
    outs = [pair.attached.submit(pair.out, data=block) for block in blocks]
    for number in outs:
        pair.attached.answer_to(number)
    ins = [pair.attached.submit(pair.back, length=64) for _ in blocks]
    got = [pair.attached.answer_to(number).data for number in ins]
    client.expect(got == blocks, shown(b"".join(blocks)), shown(b"".join(got)))


@check("bulk-waiting", "bulk: an IN that waits is answered when data comes", RET_SUBMIT)
def _(client: Client) -> None:
    pair = _Pair(client, TransferType.BULK)
    waiting = pair.attached.submit(pair.back, length=64)
    pair.attached.fence()
    sent = pair.attached.submit(pair.out, data=b"later")
    # Which of the two is told first is nobody's rule.
    answers = {answer.seqnum: answer for answer in (pair.attached.answer() for _ in range(2))}
    client.expect(set(answers) == {waiting, sent}, "one reply to each", sorted(answers))
    client.expect(answers[waiting].data == b"later", b"later".hex(), answers[waiting].data)


@check("bulk-given-up", "bulk: an IN that was unlinked takes no data with it", RET_SUBMIT)
def _(client: Client) -> None:
    pair = _Pair(client, TransferType.BULK)
    waiting = pair.attached.submit(pair.back, length=64)
    pair.attached.answer_to(pair.attached.unlink(waiting))
    _round_trip(client, pair, 10, 64)


@check("interrupt", "interrupt: what goes out comes back", SUBMIT)
def _(client: Client) -> None:
    pair = _Pair(client, TransferType.INTERRUPT)
    for size in (1, pair.payload):
        _round_trip(client, pair, size, pair.payload)


@check("control", "control: what a vendor request writes, another reads", SUBMIT)
def _(client: Client) -> None:
    attached = _Pair(client, TransferType.BULK).attached
    for size in (1, 64, 1000):
        data = _pattern(size)
        attached.control(0x40, 0x5B, data=data)
        got = attached.control(0xC0, 0x5C, data=4096)
        client.expect(got.data == data, shown(data), got.data)


def _packets(size: int) -> list[IsoPacket]:
    return [IsoPacket(number * size, size) for number in range(_ISO_PACKETS)]


def _iso_out(pair: _Pair, size: int) -> Answer:
    data = b"".join(bytes([number + 1]) * size for number in range(_ISO_PACKETS))
    packets = _packets(size)
    return pair.attached.do(pair.out, data=data, iso=packets, packets=_ISO_PACKETS, interval=1)


def _iso_in(pair: _Pair) -> Answer:
    packets = _packets(pair.payload)
    length = _ISO_PACKETS * pair.payload
    return pair.attached.do(pair.back, length=length, iso=packets, interval=1)


def _statuses(client: Client, answer: Answer) -> None:
    wanted = [0] * _ISO_PACKETS
    client.expect(
        (answer.status, [one.status for one in answer.iso]) == (0, wanted),
        "status 0 of the transfer and of each packet",
        f"{answer.status}, {[one.status for one in answer.iso]}",
    )


@check("iso-count", "isochronous: number_of_packets of a reply is that of its request", RET_SUBMIT)
def _(client: Client) -> None:
    pair = _Pair(client, TransferType.ISO)
    for answer in (_iso_out(pair, 10), _iso_in(pair)):
        client.expect(answer.packets == _ISO_PACKETS, f"{_ISO_PACKETS} at byte 32", answer.head)
        client.expect(answer.errors == 0, "error_count 0 at byte 36", answer.head)
    pair.attached.fence()


@check("iso-out", "isochronous OUT: packets behind the header, no data", RET_SUBMIT)
def _(client: Client) -> None:
    pair = _Pair(client, TransferType.ISO)
    answer = _iso_out(pair, 10)
    _statuses(client, answer)
    actual = [one.actual for one in answer.iso]
    client.expect(actual == [10] * _ISO_PACKETS, "10 bytes of each packet", actual)
    pair.attached.fence()


@check("iso-sum", "isochronous: actual_length is the sum of the packets'", ISO)
def _(client: Client) -> None:
    pair = _Pair(client, TransferType.ISO)
    for answer in (_iso_out(pair, 12), _iso_in(pair)):
        total = sum(one.actual for one in answer.iso)
        client.expect(answer.actual == total, f"{total}, the sum", answer.actual)


@check("iso-offsets", "isochronous: a reply's packets keep their offsets and lengths", ISO)
def _(client: Client) -> None:
    pair = _Pair(client, TransferType.ISO)
    wanted = [(one.offset, one.length) for one in _packets(pair.payload)]
    got = [(one.offset, one.length) for one in _iso_in(pair).iso]
    client.expect(got == wanted, str(wanted), got)


@check("iso-in", "isochronous IN: each packet's data, one behind the other without gaps", ISO)
def _(client: Client) -> None:
    pair = _Pair(client, TransferType.ISO)
    size = 10
    _iso_out(pair, size)
    answer = _iso_in(pair)
    _statuses(client, answer)
    parts, at = [], 0
    for one in answer.iso:
        parts.append(answer.data[at : at + one.actual])
        at += one.actual
    wanted = [bytes([number + 1]) * size for number in range(_ISO_PACKETS)]
    got = [part for part in parts if part]
    client.expect(got == wanted, shown(b"".join(wanted), 96), shown(answer.data, 96))
