"""Transfers and their replies, as far as every USB device can be asked: over endpoint 0."""

from __future__ import annotations

from pytest_hil.usbip.conformance.check import Group, NotApplicable
from pytest_hil.usbip.conformance.client import (
    Answer,
    Attached,
    Client,
    configuration,
    is_loopback,
    setup,
    shown,
)
from pytest_hil.usbip.conformance.operations import DOC, SERVES
from pytest_hil.usbip.descriptors import Configuration
from pytest_hil.usbip.messages import STALL, URB_SIZE, Direction

RET_SUBMIT = f"{DOC}, USBIP_RET_SUBMIT"
BASIC = f"{DOC}, usbip_header_basic"
ACTUAL = f"{RET_SUBMIT}: actual_length"
NON_ISO = "drivers/usb/usbip/stub_rx.c, stub_recv_cmd_submit: packets only matter to isochronous"

URBS = Group("urb")
check = URBS.check

_MANY = 64


def _expect_device(client: Client, answer: Answer, length: int = 18) -> None:
    """The first bytes of a device descriptor."""
    client.expect(
        answer.status == 0 and answer.actual == length and answer.data[:2] == b"\x12\x01",
        f"status 0, actual_length {length}, 12 01 …",
        answer,
    )


@check("device", "GET_DESCRIPTOR(device) gives the imported device", "USB 2.0, 9.6.1")
def _(client: Client) -> None:
    attached = client.imported()
    answer = attached.control(0x80, 6, 0x0100, 0, 18)
    _expect_device(client, answer)
    device = attached.device
    wanted = b"".join(
        each.to_bytes(2, "little")
        for each in (device.vendor_id, device.product_id, device.bcd_device)
    )
    client.expect(answer.data[8:14] == wanted, f"{shown(wanted)} at byte 8", answer.data)


@check("configuration", "GET_DESCRIPTOR(configuration) holds together", "USB 2.0, 9.6.3")
def _(client: Client) -> None:
    attached = client.imported()
    found = configuration(attached)
    count = attached.device.interface_count
    client.expect(
        len(found.numbers) == count, f"{count} interfaces, as in OP_REP_IMPORT", found.numbers
    )


@check("string", "GET_DESCRIPTOR(string)", "USB 2.0, 9.6.7")
def _(client: Client) -> None:
    attached = client.imported()
    index = next((one for one in attached.fence().data[14:17] if one), 0)
    if not index:
        raise NotApplicable("the device descriptor names no string")
    languages = attached.control(0x80, 6, 0x0300, 0, 255)
    language = int.from_bytes(languages.data[2:4], "little")
    answer = attached.control(0x80, 6, 0x0300 | index, language, 255)
    client.expect(
        answer.status == 0 and answer.data[:2] == bytes((answer.actual, 3)),
        "its length, 03, text",
        answer,
    )


@check("header", "devid, direction and endpoint of a reply are 0", BASIC)
def _(client: Client) -> None:
    answer = client.imported().fence()
    client.expect(not any(answer.head[8:20]), "zeros at bytes 8 to 19", answer.head)


@check("padding", "the last 8 bytes of a reply's header are 0", RET_SUBMIT)
def _(client: Client) -> None:
    answer = client.imported().fence()
    client.expect(not any(answer.head[40:48]), "zeros at bytes 40 to 47", answer.head)


@check("errors", "start_frame and error_count of a control transfer's reply are 0", RET_SUBMIT)
def _(client: Client) -> None:
    head = client.imported().fence().head
    client.expect(not any(head[28:32] + head[36:40]), "zeros at bytes 28 and 36", head)


@check("seqnum", "a reply has its request's number, whichever", BASIC)
def _(client: Client) -> None:
    attached = client.imported()
    for number in (1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0x01020304):
        submit = attached.asked(seqnum=number)
        attached.wire.send(submit.pack())
        answer = attached.answer()
        client.expect(answer.seqnum == number, f"{number:08x} at byte 4", answer.head)


@check("long", "more asked for than there is: actual_length is what there is", ACTUAL)
def _(client: Client) -> None:
    attached = client.imported()
    _expect_device(client, attached.control(0x80, 6, 0x0100, 0, 255))
    _expect_device(client, attached.fence())


@check("short", "less asked for than there is: actual_length is what was asked for", ACTUAL)
def _(client: Client) -> None:
    attached = client.imported()
    for length in (8, 2):
        _expect_device(client, attached.control(0x80, 6, 0x0100, 0, length), length)
    _expect_device(client, attached.fence())


@check("buffer", "a buffer that is longer than wLength gets no more than wLength", SERVES)
def _(client: Client) -> None:
    attached = client.imported()
    attached.submit(0x80, length=64, setup=setup(0x80, 6, 0x0100, 0, 8))
    got, _ended = attached.wire.rest(URB_SIZE)
    # Linux refuses to do such a transfer (drivers/usb/core/urb.c, usb_submit_urb).
    at_most = len(got) < URB_SIZE or Answer(got).actual <= 8
    client.expect(at_most, "an actual_length of at most 8, or no reply", got)


@check("stall", "a request that the device does not know is a stall: −EPIPE", "USB 2.0, 9.2.7")
def _(client: Client) -> None:
    # A descriptor type that no specification has, so that no device can know it.
    answer = client.imported().control(0x80, 6, 0x7F00, 0, 64)
    client.expect(
        (answer.status, answer.actual) == (STALL, 0), f"status {STALL}, actual_length 0", answer
    )


@check("stall-over", "after a stall of endpoint 0 the next request is done", "USB 2.0, 8.5.3.4")
def _(client: Client) -> None:
    attached = client.imported()
    for _number in range(3):
        attached.control(0x80, 6, 0x7F00, 0, 64)
        _expect_device(client, attached.fence())


def _packets(client: Client, packets: int) -> None:
    attached = client.imported()
    submit = attached.asked(packets=packets)
    attached.wire.send(submit.pack())
    _expect_device(client, attached.answer_to(submit.seqnum))
    _expect_device(client, attached.fence())
    client.close()


@check("packets-0", "number_of_packets 0 (as Linux has it) of a control transfer", NON_ISO)
def _(client: Client) -> None:
    _packets(client, 0)


@check(
    "packets-ff",
    "number_of_packets 0xffffffff (as the document has it)",
    f"{DOC}, USBIP_CMD_SUBMIT",
)
def _(client: Client) -> None:
    _packets(client, -1)


@check("packets-junk", "any other number_of_packets means nothing either", NON_ISO)
def _(client: Client) -> None:
    for packets in (1, 0x7FFFFFFF, -(2**31), 0x12345678):
        _packets(client, packets)


@check("one-segment", "several requests in one segment", f"{DOC}, Architecture")
def _(client: Client) -> None:
    attached = client.imported()
    asked = [attached.asked() for _ in range(8)]
    attached.wire.send(b"".join(one.pack() for one in asked))
    got = [attached.answer().seqnum for _ in asked]
    client.expect(
        sorted(got) == [one.seqnum for one in asked], "8 replies, one for each", sorted(got)
    )


@check("bytewise", "a request in pieces of one byte", f"{DOC}, Architecture")
def _(client: Client) -> None:
    attached = client.imported()
    submit = attached.asked()
    for byte in submit.pack():
        attached.wire.send(bytes([byte]))
    _expect_device(client, attached.answer_to(submit.seqnum))


@check("split", "a request in two pieces, and one and a half", f"{DOC}, Architecture")
def _(client: Client) -> None:
    attached = client.imported()
    first, second = attached.asked(), attached.asked()
    both = first.pack() + second.pack()
    for part in (both[:47], both[47:70], both[70:]):
        attached.wire.send(part)
    for one in (first, second):
        _expect_device(client, attached.answer_to(one.seqnum))


@check("many", f"{_MANY} in flight: each is answered once", f"{DOC}, Architecture")
def _(client: Client) -> None:
    attached = client.imported()
    asked = {
        attached.submit(0x80, length=18, setup=setup(0x80, 6, 0x0100, 0, 18)) for _ in range(_MANY)
    }
    got = [attached.answer().seqnum for _ in range(_MANY)]
    more, _ended = attached.wire.finish()
    client.expect(
        set(got) == asked and not more, f"{_MANY} numbers, each once", f"{sorted(got)} {more.hex()}"
    )


def _unused(found: Configuration, way: Direction) -> int:
    """An endpoint number that the device has not."""
    used = {
        one.number for each in found.interfaces for one in each.endpoints if one.direction is way
    }
    free = [number for number in range(15, 0, -1) if number not in used]
    if not free:
        raise NotApplicable("the device has every endpoint that there can be")
    return free[0]


def _absent(client: Client, attached: Attached, number: int) -> None:
    """Refused with an error, dropped, or left to wait; never success."""
    answered, ended = attached.wire.rest(URB_SIZE)
    if ended or not answered:
        client.expect(True, "an error, the end, or nothing", "the end" if ended else "nothing")
        return
    client.expect(len(answered) == URB_SIZE, "a reply of 48 bytes", answered)
    answer = Answer(answered)
    client.expect(
        answer.seqnum == number and answer.status < 0, "a status that is an error", answer
    )


@check("absent-in", "an IN of an endpoint that is not there", SERVES, serves_on=True)
def _(client: Client) -> None:
    attached, found = client.configured()
    number = attached.submit(0x80 | _unused(found, Direction.IN), length=64)
    _absent(client, attached, number)


@check("absent-out", "an OUT to an endpoint that is not there", SERVES, serves_on=True)
def _(client: Client) -> None:
    attached, found = client.configured()
    number = attached.submit(_unused(found, Direction.OUT), data=bytes(64))
    _absent(client, attached, number)


@check("absent-then", "after an absent endpoint's error the connection goes on", SERVES)
def _(client: Client) -> None:
    attached, found = client.configured()
    number = attached.submit(_unused(found, Direction.OUT), data=bytes(range(48)) * 4)
    answered, ended = attached.wire.rest(URB_SIZE)
    if ended or not answered:
        raise NotApplicable("the server does not answer it")
    client.expect(
        len(answered) == URB_SIZE and Answer(answered).seqnum == number,
        "one reply of 48 bytes",
        answered,
    )
    _expect_device(client, attached.fence())


@check("set-configuration", "SET_CONFIGURATION, and GET_CONFIGURATION tells it", "USB 2.0, 9.4.7")
def _(client: Client) -> None:
    attached, found = client.configured()
    answer = attached.control(0x80, 8, data=1)
    wanted = bytes([found.value])
    client.expect(answer.status == 0 and answer.data == wanted, f"{wanted.hex()}", answer.data)


@check("set-interface", "SET_INTERFACE, and GET_INTERFACE tells it", "USB 2.0, 9.4.10")
def _(client: Client) -> None:
    attached, found = client.configured()
    other = next((one for one in found.interfaces if one.alternate), None)
    if other is None:
        raise NotApplicable("no interface has an alternate setting")
    done = attached.control(1, 11, other.alternate, other.number)
    client.expect(done.status == 0, "status 0", done)
    answer = attached.control(0x81, 10, 0, other.number, 1)
    wanted = bytes([other.alternate])
    client.expect(answer.status == 0 and answer.data == wanted, f"{wanted.hex()}", answer.data)


@check("get-status", "GET_STATUS gives two bytes", "USB 2.0, 9.4.5")
def _(client: Client) -> None:
    answer = client.configured()[0].control(0x80, 0, data=2)
    client.expect((answer.status, answer.actual) == (0, 2), "status 0, two bytes", answer)


@check("out-empty", "a control OUT without data: actual_length 0, nothing behind", RET_SUBMIT)
def _(client: Client) -> None:
    attached, found = client.configured()
    answer = attached.control(0, 9, found.value)
    attached.fence()
    client.expect((answer.status, answer.actual) == (0, 0), "status 0, actual_length 0", answer)


@check(
    "out-data", "a control OUT's reply counts its bytes and does not bring them back", RET_SUBMIT
)
def _(client: Client) -> None:
    attached = client.configured()[0]
    if not is_loopback(attached.device):
        raise NotApplicable("no standard request brings data to a device: needs 1209:0001")
    answer = attached.control(0x40, 0x5B, data=bytes(range(100)))
    attached.fence()
    client.expect((answer.status, answer.actual) == (0, 100), "status 0, actual_length 100", answer)
