"""USB devices in a real guest, by its own kernel and tools."""

from __future__ import annotations

import hashlib
import itertools
import random
import statistics
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pytest_hil.attach.attached import AttachedDevice
from pytest_hil.bench import Bench
from pytest_hil.errors import AttachFailed, ConfigError, NotThere, Unsupported
from pytest_hil.qemu.guest import Guest
from pytest_hil.shell.agent_command import Follow
from pytest_hil.usbip.device import Interface, Setup, VirtualDevice
from pytest_hil.usbip.events import UsbEvent, assert_attached, parse_lines
from pytest_hil.usbip.exporter import Exporter
from pytest_hil.usbip.faults import disconnect
from pytest_hil.usbip.messages import Direction, Speed
from pytest_hil.usbip.urb import Exportable, Urb
from pytest_hil.usbip.virtual.cdc_acm import SerialPort
from pytest_hil.usbip.virtual.composite import Composite
from pytest_hil.usbip.virtual.hid import Keyboard, Mouse
from pytest_hil.usbip.virtual.mass_storage import MassStorage
from pytest_hil.usbip.virtual.vendor import Loopback

pytestmark = pytest.mark.machine

MiB = 2**20
PATIENCE = 60.0
HERE = Path(__file__).parent


@pytest.fixture
def pcaps(guest: Guest, tmp_path: Path) -> Iterator[Path]:
    """Whatever the guest's devices do is captured, and tshark finds nothing wrong with it."""
    guest.record(tmp_path)
    yield tmp_path
    guest.close()
    found = list(tmp_path.glob("usb.pcap"))
    assert found
    for pcap in found:
        assert dissected(pcap, "frame.number").count("\n") > 10
        assert dissected(pcap, "frame.number", "-Y", "_ws.malformed") == ""


def dissected(pcap: Path, field: str, *options: str) -> str:
    argv = ["tshark", "-r", str(pcap), *options, "-T", "fields", "-e", field]
    done = subprocess.run(argv, capture_output=True, text=True, check=True, timeout=120)
    return done.stdout


class Started:
    """A command in the guest that runs beside the test."""

    def __init__(self, guest: Guest, command: str) -> None:
        self._guest = guest
        self._command = command
        self._out = bytearray()
        self._changed = threading.Condition()
        self._follow = Follow(self._heard)
        self.exit_code: int | None = None
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        done = self._guest.run(self._command, check=False, timeout=120, follow=self._follow)
        with self._changed:
            self.exit_code = done.exit_code
            self._changed.notify_all()

    def _heard(self, _stream: int, data: bytes) -> None:
        with self._changed:
            self._out += data
            self._changed.notify_all()

    def wait_for(self, size: int) -> bytes:
        """Until it has said so many bytes, or ended."""
        with self._changed:
            assert self._changed.wait_for(
                lambda: len(self._out) >= size or self.exit_code is not None, PATIENCE
            )
            return bytes(self._out)

    def wait(self) -> tuple[int | None, str]:
        """Its exit code, and all that it said."""
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive(), self._out
        return self.exit_code, self._out.decode(errors="replace")

    def end(self) -> None:
        self._follow.cancel()
        self._thread.join(PATIENCE)


def keys(events: bytes) -> list[tuple[int, int]]:
    """(code, value) of the keys among Linux's struct input_event, of a 64-bit machine."""
    return [
        (code, value)
        for _seconds, _micros, kind, code, value in struct.iter_unpack("<qqHHi", events)
        if kind == 1 and value != 2  # EV_KEY; 2 is autorepeat
    ]


def test_keys_arrive_at_evdev(guest: Guest, pcaps: Path) -> None:
    keyboard = Keyboard()
    with guest.usb.attach(keyboard) as attached:
        assert set(attached.interfaces.values()) == {"usbhid"}
        reader = Started(guest, f"exec 3<{attached.node('event')}; echo; exec cat <&3")
        assert reader.wait_for(1) == b"\n"
        keyboard.type("Hi")
        shift, h, i = 42, 35, 23  # linux/input-event-codes.h
        wanted = [(shift, 1), (h, 1), (shift, 0), (h, 0), (i, 1), (i, 0)]
        size, found = 1, keys(b"")
        while len(found) < len(wanted):
            said = reader.wait_for(size)[1:]
            found = keys(said[: len(said) // 24 * 24])
            size = len(said) + 2
        assert sorted(found) == sorted(wanted)
        assert found.index((shift, 1)) < found.index((shift, 0)) < found.index((i, 1))
        reader.end()


def test_ten_megabytes_through_a_serial_port_both_ways(guest: Guest, pcaps: Path) -> None:
    size = 10 * MiB
    data = random.Random(1).randbytes(size)
    port = SerialPort(timeout=PATIENCE)
    with guest.usb.attach(port) as attached:
        tty = attached.node("ttyACM")
        guest.run(f"stty -F {tty} raw -echo")
        # Reading begins before anything is sent: what comes to a closed port is lost.
        reader = Started(guest, f"head -c {size} <{tty} | sha256sum")
        port.wait_open(PATIENCE)
        port.write(data)
        code, said = reader.wait()
        assert (code, said.split()[0]) == (0, hashlib.sha256(data).hexdigest())

        writer = Started(
            guest,
            f"dd if=/dev/urandom of=/tmp/sent bs={MiB} count=10 2>/dev/null; "
            f"cat /tmp/sent >{tty}; sha256sum </tmp/sent",
        )
        got = hashlib.sha256()
        left = size
        while left:
            piece = port.read(min(left, 65536))
            assert piece
            got.update(piece)
            left -= len(piece)
        code, said = writer.wait()
        assert (code, said.split()[0]) == (0, got.hexdigest())


def test_loopback_through_usbfs(guest: Guest, pcaps: Path, tmp_path: Path) -> None:
    program = tmp_path / "usb_loopback"
    compiler = [sys.executable, "-m", "ziglang", "cc", "-target", "x86_64-linux-musl", "-static"]
    flags = ["-O1", "-Wall", "-Wextra", "-Werror"]
    subprocess.run(
        [*compiler, *flags, "-o", str(program), str(HERE / "usb_loopback.c")],
        check=True,
        timeout=300,
    )
    guest.put(program, "/tmp/usb_loopback", mode=0o755)
    device = Loopback()
    with guest.usb.attach(device) as attached:
        assert set(attached.interfaces.values()) == {""}
        done = guest.run(f"/tmp/usb_loopback {attached.node('/dev/bus/usb/0')}", check=False)
        assert done.stdout.splitlines() == [
            "control ok 256",
            "bulk ok 87553",
            "interrupt ok 136",
            "iso ok 3072",
        ]
    device.check()


def test_a_stick_is_partitioned_filled_and_read_back(guest: Guest, pcaps: Path) -> None:
    stick = MassStorage(16 * MiB)
    with guest.usb.attach(stick) as attached:
        disk = attached.node("sd")
        guest.run(f"printf 'n\\np\\n1\\n\\n\\nw\\n' | fdisk {disk}")
        guest.run(f"modprobe vfat; mkdosfs {disk}1 && mount -t vfat {disk}1 /mnt")
        sums = guest.run(fill(4 * MiB)).stdout
        attached.replug()
        disk = attached.node("sd")
        assert f"{disk}1" in attached.nodes
        guest.run(f"mount -t vfat {disk}1 /mnt")
        assert guest.run("cd /mnt && md5sum *").stdout == sums
        assert len(sums.splitlines()) >= 3
        guest.run("umount /mnt")


def fill(piece: int) -> str:
    """A command that fills /mnt with files, says their sums, and unmounts it."""
    return (
        f"head -c {piece} /dev/urandom >/tmp/piece; n=0; "
        f"while cat /tmp/piece >/mnt/$n 2>/dev/null; do n=$((n + 1)); done; "
        "sync; cd /mnt; md5sum *; cd /; umount /mnt"
    )


def test_fifteen_devices_at_once(guest: Guest, pcaps: Path) -> None:
    def devices() -> Iterator[Exportable]:
        for number in range(3):
            yield from (Keyboard(), Mouse(), SerialPort(), Loopback())
            yield MassStorage(MiB, serial_number=f"{number:012X}")

    with ThreadPoolExecutor(5) as pool:
        attached = list(pool.map(guest.usb.attach, devices()))
    found = guest.usb.list()
    assert len(found) == 15
    assert {one.port for one in found} == {one.port for one in attached}
    assert {one.guest_busid for one in found} == {one.guest_busid for one in attached}
    # To each the nodes of its own kind, and to none those of another.
    nodes = [node for one in attached for node in one.nodes]
    assert len(nodes) == len(set(nodes))
    kinds = ["event", "event", "ttyACM", "bus/usb", "sd"] * 3
    for one, kind in zip(attached, kinds, strict=True):
        guest.run(f"test -e {one.node('0') if kind == 'bus/usb' else one.node(kind)}")
    assert {sum(f"/dev/{kind}" in node for node in nodes) for kind in ("ttyACM", "sd")} == {3}
    guest.usb.detach()
    assert guest.usb.list() == []
    assert all(one.lost for one in attached)


class BusyStick(MassStorage):
    """Says when a lot has gone both ways."""

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self.busy = threading.Event()
        self._moved = dict.fromkeys(Direction, 0)

    def submit(self, urb: Urb) -> None:
        self._moved[urb.direction] += urb.length
        if min(self._moved.values()) > 8 * MiB:
            self.busy.set()
        super().submit(urb)


def test_unplugged_while_it_reads_and_writes(guest: Guest, pcaps: Path) -> None:
    size = 512 * MiB  # more than the guest can keep in its memory
    stick = BusyStick(size)
    attached = guest.usb.attach(stick)
    disk = attached.node("sd")
    reader = Started(guest, f"cat {disk} >/dev/null")
    writer = Started(guest, f"dd if=/dev/zero of={disk} bs={MiB} seek=64 conv=fsync,notrunc")
    assert stick.busy.wait(PATIENCE)
    attached.unplug()
    code, said = reader.wait()
    assert (code, "Input/output error" in said) == (1, True), said
    # What is written goes through memory: a disk that is gone has no room, says the kernel.
    code, said = writer.wait()
    assert code == 1, said
    assert "Input/output error" in said or "No space left on device" in said
    # Neither side hangs: the next device works.
    with guest.usb.attach(Keyboard()):
        assert len(guest.usb.list()) == 1
    assert guest.usb.list() == []


def test_faults_reach_the_guest(guest: Guest) -> None:
    stick = MassStorage(16 * MiB)
    attached = guest.usb.attach(stick, faults=[disconnect(endpoint=0x81, nth=150)])
    done = guest.run(
        f"cat {attached.node('sd')} | wc -c; exec cat {attached.node('sd')}", check=False
    )
    assert int(done.stdout) < 16 * MiB
    assert done.exit_code == 1
    assert attached.lost == "its connection has ended"
    attached.detach()
    assert guest.usb.list() == []


class Broken(VirtualDevice):
    """Its handler raises when somebody asks for its strings."""

    product = "Broken"
    main = Interface(0xFF)
    out = main.bulk_out(1)

    def control(self, setup: Setup, data: bytes) -> bytes | None:
        raise RuntimeError("the handler is wrong")


def test_what_went_wrong_is_said(guest: Guest) -> None:
    lines: list[str] = []
    guest.usb.log(lines.append)
    with pytest.raises(AttachFailed) as failed:
        guest.usb.attach(Broken(), timeout=10)
    assert "Broken 1209:0001" in str(failed.value)
    assert "the handler is wrong" in str(failed.value)
    assert "usb 1-1" in failed.value.kernel
    whats = [one.what for one in parse_lines(lines)]
    assert whats[-1] == "attach-failed"
    assert {"plug", "import", "device-error", "unplug", "released"} < set(whats)
    with guest.usb.attach(Keyboard()) as attached:
        with pytest.raises(NotThere, match=r"no node ttyACM\*; its nodes: /dev/bus/usb/"):
            attached.node("ttyACM")
        with pytest.raises(NotThere, match="9 is not attached to qemu: there is 1-2 at port "):
            guest.usb.detach(9)
        with pytest.raises(Unsupported, match="Keyboard 1209:"):
            guest.snapshot()
        with pytest.raises(Unsupported, match="detach them first"):
            guest.fork()
    assert guest.usb.list() == []


def test_another_exporters_device(guest: Guest) -> None:
    with Exporter() as exporter:
        address = "{}:{}".format(*exporter.address)
        plugged = exporter.plug(Keyboard(), busid="7-3.1")
        with guest.usb.attach_remote(address, "7-3.1") as attached:
            assert attached.node("event")
            (found,) = guest.usb.list()
            assert (found.remote, found.busid) == (address, "7-3.1")
            assert plugged.in_use
        plugged.wait_released(PATIENCE)
        with pytest.raises(AttachFailed, match="its usbip says: usbip: error"):
            guest.usb.attach_remote(address, "9-9")
        attached.replug()
        exporter.close()
        assert_gone(attached)
    with pytest.raises(NotThere, match="no exporter answers at"):
        guest.usb.attach_remote(address, "7-3.1")
    with pytest.raises(ConfigError, match="is no address"):
        guest.usb.attach_remote("a b:c", "1-1")


def assert_gone(attached: AttachedDevice) -> None:
    attached.detach()
    assert attached.lost
    with pytest.raises(NotThere, match="not attached any more"):
        attached.node("event")


def test_a_machine_that_starts_anew_has_lost_its_devices(guest: Guest) -> None:
    lines: list[str] = []
    guest.usb.log(lines.append)
    saved = guest.snapshot()

    def events() -> list[UsbEvent]:
        return list(parse_lines(lines))

    for number, (action, why) in enumerate(
        (
            (guest.reset, "its machine restarted"),
            (guest.power.cycle, "its machine was switched off"),
            (lambda: guest.restore(saved), "its machine was replaced"),
        ),
        1,
    ):
        attached = guest.usb.attach(Keyboard())
        assert assert_attached(events(), node="/dev/input/").busid == f"1-{number}"
        action()
        assert attached.lost.startswith(why)
        with pytest.raises(AssertionError, match="no device is attached"):
            assert_attached(events())
        assert_gone(attached)
        assert guest.usb.list() == []
    # A twin of a machine that had devices has a port of its own.
    twin = guest.fork()
    with guest.usb.attach(Keyboard()), twin.usb.attach(SerialPort()):
        assert [one.nodes[-1] for one in twin.usb.list()] == ["/dev/ttyACM0"]
        assert "ttyACM0" not in str(guest.usb.list())


def test_machines_without_usb(bench: Bench) -> None:
    lonely = bench.open(bench.target("qemu", network="none"))
    try:
        assert "usb" not in lonely.features
        with pytest.raises(Unsupported, match='network = "isolated"'):
            _ = lonely.usb
    finally:
        lonely.close()


def test_time_to_a_ready_node(guest: Guest, capsys: pytest.CaptureFixture[str]) -> None:
    """Prints the figures of docs/explanation/usb-attach.md; they depend on the host."""
    everything: dict[str, list[float]] = {}
    for make in (Keyboard, SerialPort, lambda: MassStorage(MiB)):
        for _ in range(5):
            with guest.usb.attach(make()) as attached:
                phases = attached.phases
                row = everything.setdefault(repr(attached.device), [])
                row.append(attached.seconds)
                for (name, begin), (_next, end) in itertools.pairwise(phases):
                    everything.setdefault(name, []).append(end - begin)
    with capsys.disabled():
        text = ", ".join(f"{name} {statistics.median(row):.2f}" for name, row in everything.items())
        sys.stdout.write(f"\nattach, medians in seconds: {text}\n")
    assert statistics.median(everything["hub"]) < PATIENCE


class SlowStick(MassStorage):
    """The parts of a composite device are of one speed."""

    speed = Speed.HIGH


def test_composite(guest: Guest, pcaps: Path) -> None:
    port = SerialPort()
    keyboard = Keyboard()
    with guest.usb.attach(Composite(keyboard, port, SlowStick(MiB))) as attached:
        assert set(attached.interfaces.values()) == {"usbhid", "cdc_acm", "usb-storage"}
        reader = Started(guest, f"head -n 1 {attached.node('ttyACM')}")
        port.wait_open(PATIENCE)
        port.write(b"both work\n")
        assert reader.wait() == (0, "both work\n")
        assert guest.run(f"head -c 512 {attached.node('sd')} | wc -c").stdout.strip() == "512"


def test_what_the_guest_is_connected_to_is_ours_alone(guest: Guest) -> None:
    """Neither QEMU nor what it starts keeps anything, and a door with nobody behind it is shut."""
    pid = guest.machine.process.pid

    def descriptors() -> int:
        return len(list(Path(f"/proc/{pid}/fd").iterdir()))

    assert guest.run("nc -w 5 10.0.2.100 3240 </dev/null", check=False).stdout == ""
    before = descriptors()
    with guest.usb.attach(Keyboard()):
        # A port that is not ours is nobody's, and one connection more is no relay's.
        assert guest.run("nc -w 5 10.0.2.100 3241 </dev/null", check=False).stdout == ""
        assert guest.run("nc -w 5 10.0.2.100 22 </dev/null", check=False).exit_code != 0
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text()
        assert children == ""
    assert guest.run("true").ok
    assert descriptors() <= before
