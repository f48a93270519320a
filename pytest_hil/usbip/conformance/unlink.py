"""Giving transfers up: either it was in time, or it was not, and each is told once."""

from __future__ import annotations

from pytest_hil.usbip.conformance.check import Broken, Group, NotApplicable
from pytest_hil.usbip.conformance.client import Answer, Attached, Client, silent
from pytest_hil.usbip.conformance.operations import DOC
from pytest_hil.usbip.conformance.urbs import BASIC
from pytest_hil.usbip.messages import UNLINKED, Command

RET_UNLINK = f"{DOC}, USBIP_RET_UNLINK"
KERNEL = "drivers/usb/usbip/stub_rx.c, stub_recv_cmd_unlink"

UNLINK = Group("unlink")
check = UNLINK.check

_ROUNDS = 50


def _waiting(client: Client) -> tuple[Attached, int, int]:
    """The device, an endpoint, and a transfer there that waits."""
    attached, found = client.configured()
    address = silent(attached, found)
    number = attached.submit(address, length=8)
    return attached, address, number


def _given_up(attached: Attached, number: int) -> Answer:
    """Unlink it; the reply to that. Raises NotApplicable if it had ended by itself."""
    unlink = attached.unlink(number)
    answer = attached.answer()
    if answer.command == Command.RET_SUBMIT and answer.seqnum == number:
        raise NotApplicable("the device had something to say: the transfer had ended")
    if answer.seqnum != unlink or answer.command != Command.RET_UNLINK:
        raise Broken(f"RET_UNLINK of seqnum {unlink:#x}", str(answer))
    return answer


def _nothing_more(client: Client, attached: Attached) -> None:
    attached.fence()
    more, _ended = attached.wire.finish()
    client.expect(not more, "no other reply", more)


@check("in-time", "unlinked before it ended: −ECONNRESET", f"{DOC}, Architecture")
def _(client: Client) -> None:
    attached, _address, number = _waiting(client)
    answer = _given_up(attached, number)
    client.expect(answer.status == UNLINKED, f"status {UNLINKED} (ffffff98) at byte 20", answer)


@check("in-time-once", "unlinked before it ended: no RET_SUBMIT of it", f"{DOC}, Architecture")
def _(client: Client) -> None:
    attached, _address, number = _waiting(client)
    _given_up(attached, number)
    _nothing_more(client, attached)


@check("header", "RET_UNLINK: devid, direction, endpoint and padding are 0", RET_UNLINK)
def _(client: Client) -> None:
    attached, _address, number = _waiting(client)
    head = _given_up(attached, number).head
    client.expect(not any(head[8:20] + head[24:48]), "zeros at bytes 8 to 19 and 24 to 47", head)


@check("too-late", "unlinked after it ended: RET_SUBMIT, then RET_UNLINK with 0", RET_UNLINK)
def _(client: Client) -> None:
    attached = client.imported()
    submit = attached.asked()
    attached.wire.send(submit.pack())
    attached.answer_to(submit.seqnum)
    answer = attached.answer_to(attached.unlink(submit.seqnum))
    client.expect(
        (answer.command, answer.status) == (Command.RET_UNLINK, 0), "command 4, status 0", answer
    )
    _nothing_more(client, attached)


@check("unknown", "the unlink of a number that never was: status 0", KERNEL)
def _(client: Client) -> None:
    attached = client.imported()
    answer = attached.answer_to(attached.unlink(0x00C0FFEE))
    client.expect(
        (answer.command, answer.status) == (Command.RET_UNLINK, 0), "command 4, status 0", answer
    )
    _nothing_more(client, attached)


@check("twice", "unlinked twice: −ECONNRESET, then 0", KERNEL)
def _(client: Client) -> None:
    attached, _address, number = _waiting(client)
    first = _given_up(attached, number)
    second = attached.answer_to(attached.unlink(number))
    client.expect(
        (first.status, second.status) == (UNLINKED, 0), f"{UNLINKED}, 0", f"{first}; {second}"
    )
    _nothing_more(client, attached)


@check("order", "submitted and unlinked at once: told once, and in order", KERNEL)
def _(client: Client) -> None:
    attached = client.imported()
    for _round in range(_ROUNDS):
        submit = attached.asked()
        unlink = attached.unlinking(submit.seqnum)
        attached.wire.send(submit.pack() + unlink.pack())
        first = attached.answer()
        if first.command == Command.RET_SUBMIT:
            second = attached.answer_to(unlink.seqnum)
            client.expect(second.status == 0, "RET_SUBMIT, then RET_UNLINK with 0", second)
        else:
            client.expect(first.status == UNLINKED, f"RET_UNLINK alone, with {UNLINKED}", first)
    _nothing_more(client, attached)


@check("one-of-many", "one of several is unlinked: only that one ends", RET_UNLINK)
def _(client: Client) -> None:
    attached, address, first = _waiting(client)
    second, third = (attached.submit(address, length=8) for _ in range(2))
    for number in (second, first, third):
        answer = _given_up(attached, number)
        client.expect(answer.status == UNLINKED, f"status {UNLINKED}", answer)
    _nothing_more(client, attached)


@check("number", "RET_UNLINK has the number of the unlink, not that of the transfer", BASIC)
def _(client: Client) -> None:
    attached, _address, number = _waiting(client)
    unlink = attached.unlink(number)
    answer = attached.answer()
    if answer.command == Command.RET_SUBMIT:
        raise NotApplicable("the device had something to say: the transfer had ended")
    client.expect(answer.seqnum == unlink, f"{unlink:08x} at byte 4", answer.head)
