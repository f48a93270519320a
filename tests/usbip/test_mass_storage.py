"""The stick, by the commands that a host's driver sends. Cases: BOT 1.0, 6.7."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_hil.errors import ConfigError, InfrastructureError
from pytest_hil.usbip.device import VirtualDevice
from pytest_hil.usbip.messages import STALL
from pytest_hil.usbip.virtual import scsi
from pytest_hil.usbip.virtual.mass_storage import FAILED, PASSED, PHASE_ERROR, MassStorage

if TYPE_CHECKING:
    from tests.usbip.conftest import Asker

    Ask = Callable[[VirtualDevice], Asker]

INTO, OUT_OF = 0x02, 0x81


class Host:
    """Does commands as usb-storage does: wrapper, data, status, and clearing of halts."""

    def __init__(self, asker: Asker) -> None:
        self.asker = asker
        self.tag = 0
        asker.configure()

    def ended(self, address: int, **what: int | bytes) -> tuple[int, bytes, int]:
        urb = self.asker.submit(address, **what)  # type: ignore[arg-type]
        return self.asker.ended[urb.seqnum]

    def clear(self, address: int) -> None:
        assert self.asker.control(0x02, 1, index=address, data=0)[0] == 0

    def command(
        self, block: bytes, *, expected: int = 0, data: bytes = b"", chunk: int = 2**20
    ) -> tuple[int, bytes, int]:
        """(status, data, residue)."""
        self.tag += 1
        flags = 0 if data else 0x80
        head = struct.pack(
            "<4sIIBBB16s", b"USBC", self.tag, expected or len(data), flags, 0, 16, block
        )
        assert self.ended(INTO, data=head)[0] == 0
        got = b""
        while len(got) < expected:
            status, part, _actual = self.ended(OUT_OF, length=min(chunk, expected - len(got)))
            if status == STALL:
                self.clear(OUT_OF)
                break
            got += part
            if len(part) < min(chunk, expected):
                break
        for at in range(0, len(data), chunk):
            if self.ended(INTO, data=data[at : at + chunk])[0] == STALL:
                self.clear(INTO)
                break
        status, answer, _actual = self.ended(OUT_OF, length=13)
        if status == STALL:
            self.clear(OUT_OF)
            answer = self.ended(OUT_OF, length=13)[1]
        signature, tag, residue, code = struct.unpack("<4sIIB", answer)
        assert (signature, tag) == (b"USBS", self.tag)
        return code, got, residue

    def sense(self) -> tuple[int, int]:
        code, data, _residue = self.command(bytes([scsi.REQUEST_SENSE, 0, 0, 0, 18]), expected=18)
        assert code == PASSED
        assert len(data) == 18
        return data[2], data[12]


def read10(address: int, count: int) -> bytes:
    return struct.pack(">BBIBHB", scsi.READ_10, 0, address, 0, count, 0)


def write10(address: int, count: int) -> bytes:
    return struct.pack(">BBIBHB", scsi.WRITE_10, 0, address, 0, count, 0)


@pytest.fixture
def stick() -> MassStorage:
    return MassStorage(2**20)


@pytest.fixture
def host(ask: Ask, stick: MassStorage) -> Host:
    return Host(ask(stick))


def test_what_is_written_is_read(host: Host, stick: MassStorage) -> None:
    data = bytes(range(256)) * 16
    assert host.command(write10(3, 8), data=data) == (PASSED, b"", 0)
    assert host.command(read10(3, 8), expected=4096) == (PASSED, data, 0)
    assert host.command(read10(3, 8), expected=4096, chunk=1024) == (PASSED, data, 0)
    assert stick.read_back(3 * 512, 4096) == data
    assert (stick.bytes_read, stick.bytes_written) == (8192, 4096)


def test_what_it_says_of_itself(host: Host) -> None:
    status, data, residue = host.command(bytes([scsi.INQUIRY, 0, 0, 0, 36]), expected=36)
    assert (status, residue, len(data)) == (PASSED, 0, 36)
    assert (data[0], data[1], data[8:32].split()) == (0, 0x80, [b"HIL", b"Virtual", b"stick"])
    capacity = host.command(bytes([scsi.READ_CAPACITY_10]), expected=8)[1]
    assert struct.unpack(">II", capacity) == (2047, 512)
    long = bytes([scsi.SERVICE_IN_16, 0x10]) + bytes(11) + bytes([32])
    assert struct.unpack(">QI", host.command(long, expected=32)[1][:12]) == (2047, 512)
    assert host.command(bytes([scsi.TEST_UNIT_READY]))[0] == PASSED
    pages = host.command(bytes([scsi.INQUIRY, 1, 0, 0, 255]), expected=255)[1]
    for page in pages[4:]:
        found = host.command(bytes([scsi.INQUIRY, 1, page, 0, 255]), expected=255)[1]
        assert (found[1], found[3]) == (page, len(found) - 4)


def test_more_is_expected_than_there_is(host: Host) -> None:
    # Case 5, ended by a short packet, and by a stall where the data come out even.
    assert host.command(bytes([scsi.INQUIRY, 0, 0, 0, 36]), expected=100)[2] == 64
    status, data, residue = host.command(read10(0, 1), expected=1024, chunk=512)
    assert (status, len(data), residue) == (PASSED, 512, 512)
    # Cases 4 and 9: nothing at all.
    assert host.command(bytes([scsi.TEST_UNIT_READY]), expected=10) == (PASSED, b"", 10)
    assert host.command(bytes([scsi.TEST_UNIT_READY]), data=bytes(10)) == (PASSED, b"", 10)
    # Case 11: less is taken than the host gives.
    assert host.command(write10(0, 1), data=bytes(1024), chunk=512) == (PASSED, b"", 512)


def test_the_host_and_the_command_do_not_agree(host: Host) -> None:
    # Cases 2, 3, 7, 8, 10 and 13.
    assert host.command(read10(0, 1))[0] == PHASE_ERROR
    assert host.command(write10(0, 1))[0] == PHASE_ERROR
    assert host.command(read10(0, 2), expected=512)[0] == PHASE_ERROR
    assert host.command(write10(0, 1), expected=512)[0] == PHASE_ERROR
    assert host.command(read10(0, 1), data=bytes(512))[0] == PHASE_ERROR
    assert host.command(write10(0, 2), data=bytes(512))[0] == PHASE_ERROR
    assert host.command(read10(0, 1), expected=512)[0] == PASSED


@pytest.mark.parametrize(
    ("block", "sense"),
    [
        (bytes([0xEE]), (5, 0x20)),
        (read10(2048, 1), (5, 0x21)),
        (read10(2047, 2), (5, 0x21)),
        (bytes([scsi.INQUIRY, 1, 0x99, 0, 36]), (5, 0x24)),
        (bytes([scsi.MODE_SENSE_6, 0, 0x19, 0, 255]), (5, 0x24)),
    ],
)
def test_commands_that_fail_say_why(host: Host, block: bytes, sense: tuple[int, int]) -> None:
    assert host.command(block, expected=512)[0] == FAILED
    assert host.sense() == sense
    assert host.sense() == (0, 0)


def test_a_stick_that_is_read_only(ask: Ask) -> None:
    host = Host(ask(MassStorage(bytes(512) + b"x" * 512, read_only=True)))
    assert host.command(bytes([scsi.MODE_SENSE_6, 0, 0x3F, 0, 4]), expected=4)[1][2] == 0x80
    assert host.command(write10(0, 1), data=bytes(512))[0] == FAILED
    assert host.sense() == (7, 0x27)
    assert host.command(read10(1, 1), expected=512)[1] == b"x" * 512


def test_eject_and_insert(host: Host, stick: MassStorage) -> None:
    stick.eject()
    assert host.command(bytes([scsi.TEST_UNIT_READY]))[0] == FAILED
    assert host.sense() == (2, 0x3A)
    assert host.command(read10(0, 1), expected=512)[0] == FAILED
    stick.insert(b"n" * 1024)
    assert host.command(bytes([scsi.TEST_UNIT_READY]))[0] == FAILED
    assert host.sense() == (6, 0x28)
    assert host.command(read10(1, 1), expected=512) == (PASSED, b"n" * 512, 0)
    with pytest.raises(ConfigError, match="whole blocks of 512 bytes"):
        stick.insert(b"x")


def test_the_guest_ejects(host: Host, stick: MassStorage) -> None:
    prevent, allow = (bytes([scsi.PREVENT, 0, 0, 0, lock]) for lock in (1, 0))
    eject = bytes([scsi.START_STOP, 0, 0, 0, 2])
    assert host.command(prevent)[0] == PASSED
    assert host.command(eject)[0] == FAILED
    assert host.sense() == (5, 0x53)
    assert host.command(allow)[0] == PASSED
    assert host.command(eject)[0] == PASSED
    assert host.command(bytes([scsi.TEST_UNIT_READY]))[0] == FAILED
    with pytest.raises(ConfigError, match="no medium is in it"):
        stick.read_back()


def test_a_file(ask: Ask, tmp_path: Path) -> None:
    path = tmp_path / "disk.img"
    path.write_bytes(b"a" * 1024)
    stick = MassStorage(path)
    host = Host(ask(stick))
    assert host.command(write10(1, 1), data=b"b" * 512)[0] == PASSED
    assert host.command(bytes([scsi.SYNCHRONIZE_10]))[0] == PASSED
    assert path.read_bytes() == b"a" * 512 + b"b" * 512
    with pytest.raises(InfrastructureError, match=r"disk\.img is in use as a stick already"):
        MassStorage(path)
    path.write_bytes(b"")
    assert host.command(read10(0, 1), expected=512)[0] == FAILED
    assert host.sense() == (3, 0x11)
    stick.close()
    path.write_bytes(b"c" * 512)
    MassStorage(path).close()


def test_files_that_cannot_be_sticks(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"(?s)gone\.img cannot be opened: .*truncate -s 64M"):
        MassStorage(tmp_path / "gone.img")
    (tmp_path / "small").write_bytes(b"x")
    with pytest.raises(ConfigError, match="no room for one block"):
        MassStorage(tmp_path / "small")
    with pytest.raises(ConfigError, match="block_size: 500; allowed"):
        MassStorage(1000, block_size=500)


def test_no_wrapper_at_all(host: Host) -> None:
    assert host.ended(INTO, data=b"nonsense")[0] == STALL
    host.clear(INTO)
    assert host.ended(INTO, data=bytes(31))[0] == STALL, "it stays halted until a reset"
    assert host.asker.control(0x21, 0xFF, data=0)[0] == 0
    host.clear(INTO)
    host.clear(OUT_OF)
    assert host.command(bytes([scsi.TEST_UNIT_READY]))[0] == PASSED


def test_what_a_dead_importer_left_is_forgotten(ask: Ask, stick: MassStorage) -> None:
    host = Host(ask(stick))
    head = struct.pack("<4sIIBBB16s", b"USBC", 1, 512, 0x80, 0, 10, read10(0, 1))
    assert host.ended(INTO, data=head)[0] == 0
    stick.released()
    again = Host(ask(stick))
    assert again.command(read10(0, 1), expected=512)[0] == PASSED
