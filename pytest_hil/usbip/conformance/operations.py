"""Before a device is imported: the list, the import, and what is no request at all."""

from __future__ import annotations

import struct

from pytest_hil.usbip.conformance.check import Broken, Group
from pytest_hil.usbip.conformance.client import Client, Wire, shown, silent
from pytest_hil.usbip.messages import (
    BUSID_SIZE,
    DEVICE_SIZE,
    INTERFACE_SIZE,
    OP_SIZE,
    VERSION,
    Code,
    Device,
    OpHeader,
    ReqDevlist,
    ReqImport,
    Speed,
)

DOC = "Documentation/usb/usbip_protocol.rst"
LIST = f"{DOC}, OP_REP_DEVLIST"
IMPORT = f"{DOC}, OP_REP_IMPORT"
SERVES = "no document sets the reaction: nothing hangs, and the next client is served"

OPERATIONS = Group("op")
check = OPERATIONS.check

_FLOOD = 50


def _listed(client: Client) -> bytes:
    return client.devlist()[0]


def _records(raw: bytes) -> list[bytes]:
    """Each device's bytes in a list, with its interfaces."""
    records, at = [], OP_SIZE + 4
    while at < len(raw):
        size = DEVICE_SIZE + INTERFACE_SIZE * raw[at + DEVICE_SIZE - 1]
        records.append(raw[at : at + size])
        at += size
    return records


@check("devlist-version", "the list has the version 1.1.1", f"{DOC}, Protocol Version")
def _(client: Client) -> None:
    raw = _listed(client)
    client.expect(OpHeader.parse(raw).version == VERSION, "01 11 at byte 0", raw[:8])


@check("devlist-code", "the list has the reply code 0x0005", LIST)
def _(client: Client) -> None:
    raw = _listed(client)
    client.expect(OpHeader.parse(raw).code == Code.REP_DEVLIST, "00 05 at byte 2", raw[:8])


@check("devlist-status", "the list has the status 0", LIST)
def _(client: Client) -> None:
    raw = _listed(client)
    client.expect(OpHeader.parse(raw).status == 0, "00000000 at byte 4", raw[:8])


@check("devlist-layout", "each device has 312 bytes, and 4 for each interface", LIST)
def _(client: Client) -> None:
    raw, devices = client.devlist()
    size = OP_SIZE + 4 + sum(DEVICE_SIZE + INTERFACE_SIZE * one.interface_count for one in devices)
    client.expect(len(raw) == size, f"{size} bytes for {len(devices)} devices", raw)


@check("devlist-end", "nothing comes after the list", LIST)
def _(client: Client) -> None:
    wire = client.wire()
    client.devlist(wire)
    more, _ended = wire.finish()
    client.expect(not more, "nothing", more)


@check("devlist-text", "unused bytes of path and busid are zero", LIST)
def _(client: Client) -> None:
    for one in _records(_listed(client)):
        for name, field in (("path", one[:256]), ("busid", one[256:288])):
            text, end, rest = field.partition(b"\0")
            client.expect(
                bool(end) and not any(rest) and text.isascii(),
                f"{name}: text, a zero byte, zeros",
                field,
            )


@check("devlist-busid", "each bus id is there once, and not empty", LIST)
def _(client: Client) -> None:
    names = [one.busid for one in client.devlist()[1]]
    client.expect(len(set(names)) == len(names) and all(names), "names, each once", names)


@check("devlist-speed", "the speed is one of the kernel's enum usb_device_speed", LIST)
def _(client: Client) -> None:
    for one in client.devlist()[1]:
        client.expect(isinstance(one.speed, Speed), "0 to 6", int(one.speed))


@check("devlist-interfaces", "each interface's padding byte is zero", LIST)
def _(client: Client) -> None:
    for one in _records(_listed(client)):
        for at in range(DEVICE_SIZE, len(one), INTERFACE_SIZE):
            record = one[at : at + INTERFACE_SIZE]
            client.expect(record[3] == 0, "00 at byte 3 of an interface", record)


@check("devlist-again", "the list is the same for the next client", LIST)
def _(client: Client) -> None:
    first, second = _listed(client), _listed(client)
    client.expect(first == second, shown(first, 400), shown(second, 400))


@check("import-layout", "an import is answered with 320 bytes, without interfaces", IMPORT)
def _(client: Client) -> None:
    attached = client.imported()
    # A URB's reply begins where the import's ends: interfaces between them would be seen here.
    answer = attached.fence()
    client.expect(len(attached.reply) == OP_SIZE + DEVICE_SIZE, "320 bytes", attached.reply[:8])
    client.expect(answer.head[:4] == b"\0\0\0\3", "00000003 just behind them", answer.head)


@check("import-header", "the import's reply: version 1.1.1, code 0x0003, status 0", IMPORT)
def _(client: Client) -> None:
    reply = client.imported().reply[:OP_SIZE]
    client.expect(reply == struct.pack(">HHI", VERSION, 3, 0), "01110003 00000000", reply)


@check(
    "import-busid",
    "the import's reply has the bus id that was asked for",
    "tools/usb/usbip/src/usbip_attach.c, query_import_device",
)
def _(client: Client) -> None:
    reply = client.imported().reply[OP_SIZE + 256 : OP_SIZE + 288]
    wanted = client.busid.encode().ljust(BUSID_SIZE, b"\0")
    client.expect(reply == wanted, shown(wanted), reply)


def _facts(device: Device) -> tuple[object, ...]:
    """All but the configuration, which an importer may have changed."""
    numbers = (device.busnum, device.devnum, device.speed, device.vendor_id, device.product_id)
    classes = (device.bcd_device, device.device_class, device.subclass, device.protocol)
    return (device.path, device.busid, *numbers, *classes, device.configurations)


@check("import-consistent", "list and import tell the same of a device", IMPORT)
def _(client: Client) -> None:
    listed = next((one for one in client.devlist()[1] if one.busid == client.busid), None)
    if listed is None:
        raise Broken(f"{client.busid} in the list", "it is not there")
    told, listed_facts = _facts(client.imported().device), _facts(listed)
    client.expect(told == listed_facts, str(listed_facts), told)


@check("import-unknown", "an unknown bus id is refused, in 8 bytes", IMPORT, serves_on=True)
def _(client: Client) -> None:
    wire = client.wire()
    status, raw = client.ask_import(wire, "9-9.9.9.9")
    client.expect(status != 0, "a status that is not 0", raw)
    more, _ended = wire.finish()
    client.expect(not more, "nothing behind the 8 bytes", raw + more)


def _no_success(client: Client, wire: Wire, wanted: str) -> None:
    """No reply, an end, or a reply with a status."""
    got, ended = wire.rest()
    refused = len(got) < OP_SIZE or OpHeader.parse(got).status != 0
    client.expect(refused, wanted, f"{shown(got)}, then {'the end' if ended else 'silence'}")


@check(
    "import-unterminated", "a bus id without a zero byte imports nothing", SERVES, serves_on=True
)
def _(client: Client) -> None:
    wire = client.wire()
    wire.send(OpHeader(Code.REQ_IMPORT).pack() + b"1" * BUSID_SIZE)
    _no_success(client, wire, "no device")


@check("import-empty", "an empty bus id imports nothing", SERVES, serves_on=True)
def _(client: Client) -> None:
    wire = client.wire()
    wire.send(OpHeader(Code.REQ_IMPORT).pack() + bytes(BUSID_SIZE))
    _no_success(client, wire, "no device")


@check(
    "version-wrong",
    "a request of another version is not answered with success",
    "tools/usb/usbip/src/usbip_network.c, usbip_net_recv_op_common",
    serves_on=True,
)
def _(client: Client) -> None:
    wire = client.wire()
    wire.send(OpHeader(Code.REQ_DEVLIST, version=0x0666).pack())
    _no_success(client, wire, "no list")


@check(
    "code-unknown",
    "an unknown request is not answered with success",
    "tools/usb/usbip/src/usbipd.c, recv_pdu",
    serves_on=True,
)
def _(client: Client) -> None:
    wire = client.wire()
    wire.send(OpHeader(0x80FF).pack())
    _no_success(client, wire, "no reply of status 0")


@check(
    "import-busy",
    "a device that is in use is refused, and its user goes on",
    "tools/usb/usbip/src/usbipd.c, recv_request_import",
    serves_on=True,
)
def _(client: Client) -> None:
    attached = client.imported()
    status, raw = client.ask_import(client.wire(), client.busid)
    attached.fence()
    client.expect(status != 0, "a status that is not 0, and the first client's URB answered", raw)


@check("half", "half a request and then silence holds nobody up", SERVES, serves_on=True)
def _(client: Client) -> None:
    for part in (ReqDevlist().pack()[:5], ReqImport("1-1").pack()[:20]):
        client.wire().send(part)
    client.next_client()
    client.expect(True, "others are served meanwhile", "served")


@check("garbage", "bytes that are no request", SERVES, serves_on=True)
def _(client: Client) -> None:
    for junk in (b"GET / HTTP/1.1\r\n\r\n", b"\xff" * 512, bytes(512), b"\x01\x11" * 64):
        wire = client.wire()
        wire.send(junk, may_fail=True)
        _no_success(client, wire, "no success")


@check("wordless", "clients that come and go without a word", SERVES, serves_on=True)
def _(client: Client) -> None:
    for reset in (False, True) * 5:
        client.wire().close(reset=reset)
    client.expect(True, "the server goes on", "10 came and went")


@check("flood", f"{_FLOOD} connections at once", SERVES, serves_on=True)
def _(client: Client) -> None:
    wires = [client.wire() for _ in range(_FLOOD)]
    for wire in wires:
        wire.send(ReqDevlist().pack(), may_fail=True)
    served = 0
    for wire in wires:
        try:
            wire.take(OP_SIZE, "a list")
            served += 1
        except Broken:
            break
    client.expect(served == _FLOOD, f"{_FLOOD} lists", f"{served} lists")


@check("bytewise", "a request in pieces of one byte", f"{DOC}, Architecture")
def _(client: Client) -> None:
    wire = client.wire()
    for byte in ReqDevlist().pack()[:-1]:
        wire.send(bytes([byte]))
    wire.send(ReqDevlist().pack()[-1:])
    raw = wire.take(OP_SIZE, "the header of OP_REP_DEVLIST")
    client.expect(raw == struct.pack(">HHI", VERSION, 5, 0), "01110005 00000000", raw)


@check("meanwhile", "others are served while a device is used, a transfer waiting", SERVES)
def _(client: Client) -> None:
    attached, found = client.configured()
    attached.submit(silent(attached, found), length=8)
    raw = _listed(client)
    client.expect(OpHeader.parse(raw).code == Code.REP_DEVLIST, "a list", raw[:8])


@check("released", "a device is free again when its client has gone", SERVES, serves_on=True)
def _(client: Client) -> None:
    for reset in (False, True):
        attached = client.imported()
        attached.fence()
        attached.wire.close(reset=reset)
    client.expect(True, "imported again after a FIN and after a RST", "imported")
