"""USB devices at a board: an emulated PC that we know by its serial line and its network only."""

from __future__ import annotations

import hashlib
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

from pytest_hil import process
from pytest_hil.bench import Bench, Settings
from pytest_hil.board.board import Board
from pytest_hil.cache import Cache
from pytest_hil.config import DebianImage
from pytest_hil.errors import AttachFailed, NotThere, Unsupported
from pytest_hil.progress import silent
from pytest_hil.qemu.hardware import AGENT_PORT
from pytest_hil.qemu.image import resolve
from pytest_hil.usbip.events import parse_lines
from pytest_hil.usbip.exporter import Exporter
from pytest_hil.usbip.virtual.cdc_acm import SerialPort
from pytest_hil.usbip.virtual.hid import Keyboard
from pytest_hil.usbip.virtual.mass_storage import MassStorage

pytestmark = pytest.mark.machine

PATIENCE = 60.0
# This host, as QEMU's user network has it for its guest, whose connections come from loopback.
HOST = "10.0.2.2"
USBIP = "/usr/sbin/usbip"
TARGET = """
[target.{name}]
backend = "board"
arch = "x86_64"
console = {{driver = "unix", path = "{console}"}}
power = {{driver = "qmp", socket = "{qmp}"}}
boot = [{{driver = "prompt"}}]
{usb}
"""
USB = {
    "board": f'usb = {{address = "{HOST}", listen = "127.0.0.1"}}',
    "wide": f'usb = {{address = "{HOST}", listen = "0.0.0.0", allow = ["10.9.8.0/24"]}}',
    "lost": 'usb = {address = "127.0.0.1"}',
    "without": "",
}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where a board that nobody has switched on is described, in several ways."""
    directory = tmp_path_factory.mktemp("board")
    image = DebianImage(name="usb-board", packages=("bash",))
    built = resolve(image, arch="x86_64", cache=Cache.default(), progress=silent)
    sockets = {name: directory / name for name in ("console", "qmp")}
    text = "".join(TARGET.format(name=name, usb=usb, **sockets) for name, usb in USB.items())
    (directory / "boards.toml").write_text(text)
    argv = [
        *("qemu-system-x86_64", "-S", "-no-shutdown", "-nodefaults", "-display", "none"),
        *("-machine", "q35", "-accel", "tcg", "-cpu", "max,-erms", "-m", "256M"),
        *("-kernel", str(built.kernel), "-initrd", str(built.initrd), "-append", built.append),
        *("-netdev", "user,id=net", "-device", "virtio-net-pci,netdev=net,romfile="),
        # Its agent has nobody to speak to.
        *("-device", "virtio-serial-pci", "-chardev", "null,id=agent"),
        *("-device", f"virtserialport,chardev=agent,name={AGENT_PORT}"),
    ]
    with ExitStack() as everything:
        fds = []
        for name, path in sockets.items():
            listening = everything.enter_context(socket.socket(socket.AF_UNIX))
            listening.bind(str(path))
            listening.listen()
            fds.append(listening.fileno())
            argv += ["-chardev", f"socket,id={name},fd={fds[-1]},server=on,wait=off"]
        argv += ["-serial", "chardev:console", "-mon", "chardev=qmp,mode=control"]
        everything.enter_context(process.start(argv, pass_fds=fds))
        yield directory


@contextmanager
def opened(root: Path, name: str = "board") -> Iterator[Board]:
    """As one test of one run has it: its console has one client at a time."""
    with Bench(Settings(root=root, lab=root / "lab")) as bench:
        made = bench.open(bench.describe(name))
        assert isinstance(made, Board)
        yield made
        made.close()


@pytest.fixture
def board(root: Path) -> Iterator[Board]:
    with opened(root) as made:
        yield made


def listening() -> set[str]:
    """Where this process listens for TCP, as the kernel has it: address and port in hex."""
    own = set()
    for one in Path("/proc/self/fd").iterdir():
        with suppress(OSError):
            own.add(str(one.readlink()))
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return {row[1] for row in rows if row[3] == "0A" and f"socket:[{row[9]}]" in own}


def test_a_serial_port_and_a_keyboard(board: Board, tmp_path: Path) -> None:
    before = listening()
    lines: list[str] = []
    board.record(tmp_path)
    board.usb.log(lines.append)
    assert "usb" in board.features
    port = SerialPort(timeout=PATIENCE)
    with board.usb.attach(port) as attached, board.usb.attach(Keyboard()) as keyboard:
        tty = attached.node("ttyACM")
        board.run(f"stty -F {tty} raw -echo; echo hello from the board > {tty}")
        assert port.readline() == b"hello from the board\n"
        assert keyboard.node("event")
        assert set(keyboard.interfaces.values()) == {"usbhid"}
        found = {one.busid: one for one in board.usb.list()}
        assert found["1-1"].port == attached.port
        assert found["1-2"].nodes == keyboard.nodes
        # Nobody else can come any more.
        assert listening() == before
    assert board.usb.list() == []
    assert board.run(f"ls {tty} /var/run/vhci_hcd", check=False).stdout == "/var/run/vhci_hcd:\n"
    assert (tmp_path / "usb.pcap").stat().st_size > 1000
    whats = [one.what for one in parse_lines(lines)]
    assert [whats.count(one) for one in ("attach", "detach", "released")] == [2, 2, 2]


def test_what_is_pulled_out_and_plugged_in_again(board: Board) -> None:
    data = bytes(range(256)) * 256
    stick = MassStorage(data)
    with board.usb.attach(stick) as attached:
        attached.replug()
        summed = board.run(f"sha256sum < {attached.node('sd')}").stdout.split()[0]
        assert summed == hashlib.sha256(data).hexdigest()
        attached.unplug()
        assert board.usb.list() == []


def test_a_power_cycle_takes_the_devices(board: Board) -> None:
    for act, why in ((board.power.cycle, "switched off"), (board.reset, "reset")):
        attached = board.usb.attach(Keyboard())
        act()
        assert attached.lost == f"the board was {why}"
        assert board.usb.list() == []
        attached.detach()
        with pytest.raises(NotThere, match="not attached any more"):
            attached.node("event")
    board.power.off()
    with pytest.raises(NotThere, match=r"is switched off: no shell"):
        board.usb.attach(Keyboard())
    board.power.on()
    with board.usb.attach(Keyboard()) as attached:
        assert attached.node("event")
        board.power.off()


def test_the_end_of_a_test_takes_the_devices(root: Path) -> None:
    with opened(root) as board:
        attached = board.usb.attach(SerialPort())
    assert attached.lost == "it was detached"
    with opened(root) as board:
        assert board.run("ls /dev/ttyACM*", check=False).stdout == ""
        assert board.usb.list() == []


def test_what_a_dead_run_left(board: Board) -> None:
    """A device of this host's that nobody has attached here: its connection still stands."""
    with Exporter() as exporter:
        plugged = exporter.plug(SerialPort(), busid="1-1")
        port = exporter.address[1]
        board.run(f"usbip --tcp-port {port} attach -r {HOST} -b 1-1")
        plugged.wait_imported(PATIENCE)
        with board.usb.attach(SerialPort()) as attached:
            plugged.wait_released(PATIENCE)
            assert [one.port for one in board.usb.list()] == [attached.port]
            assert attached.node("ttyACM0")
            # Only once: what comes later is somebody's.
            board.run(f"usbip --tcp-port {port} attach -r {HOST} -b 1-1")
            with board.usb.attach(Keyboard()):
                assert len(board.usb.list()) == 3
        board.run("usbip detach -p 00 || usbip detach -p 01")


def test_another_exporters_device(board: Board) -> None:
    with Exporter() as exporter:
        address = "{}:{}".format(*exporter.address)
        plugged = exporter.plug(Keyboard(), busid="7-3.1")
        with board.usb.attach_remote(address, "7-3.1") as attached:
            assert attached.node("event")
            (found,) = board.usb.list()
            assert (found.remote, found.busid) == (address, "7-3.1")
        plugged.wait_released(PATIENCE)
        with pytest.raises(AttachFailed, match="its usbip says: usbip: error"):
            board.usb.attach_remote(address, "9-9")


@contextmanager
def without(board: Board, *paths: str) -> Iterator[None]:
    """The board has no such files."""
    moves = [f"mv {path} /tmp/{path.rpartition('/')[2]}" for path in paths]
    back = [f"mv /tmp/{path.rpartition('/')[2]} {path}" for path in paths]
    board.run("set -e; " + "; ".join(moves))
    try:
        yield
    finally:
        board.run("set -e; " + "; ".join(back))


def test_a_board_without_the_tool(board: Board) -> None:
    """What bash can do, and busybox's nc, is enough."""
    for missing in ([USBIP], [USBIP, "/bin/bash"]):
        with without(board, *missing), Exporter() as exporter:
            port = SerialPort(timeout=PATIENCE)
            stick = MassStorage(2**16)
            with board.usb.attach(port) as attached, board.usb.attach(stick) as other:
                tty = attached.node("ttyACM")
                board.run(f"stty -F {tty} raw -echo; echo hello > {tty}")
                assert port.readline() == b"hello\n"
                assert board.run(f"head -c 512 {other.node('sd')} | wc -c").stdout.strip() == "512"
                assert len(board.usb.list()) == 2
            assert board.usb.list() == []
            with pytest.raises(AttachFailed, match="the exporter does not give 9-9 away"):
                board.usb.attach_remote("{}:{}".format(*exporter.address), "9-9")


def test_a_board_without_the_module(board: Board) -> None:
    module = board.run("find /lib/modules -name 'vhci[-_]hcd.ko*'").stdout.strip()
    with without(board, module):
        board.run("rmmod vhci_hcd")
        with pytest.raises(AttachFailed, match="its kernel has no vhci_hcd"):
            board.usb.attach(Keyboard())
    # Where it is there, it is loaded.
    with board.usb.attach(Keyboard()) as attached:
        assert attached.node("event")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        (
            "wide",
            r"127\.0\.0\.1 came and was refused: \[target.wide.usb\] in boards\.toml has "
            r"allow = \[10\.9\.8\.0/24\]",
        ),
        ("lost", r"it did not come to 127\.0\.0\.1, port \d+: is that this host's address"),
    ],
)
def test_a_board_that_does_not_reach_this_host(root: Path, name: str, said: str) -> None:
    before = listening()
    with opened(root, name) as board:
        with pytest.raises(AttachFailed, match=said) as failed:
            board.usb.attach(Keyboard())
        assert "its usbip says: usbip: error" in str(failed.value)
        with without(board, USBIP), pytest.raises(AttachFailed, match=said):
            board.usb.attach(Keyboard())
        assert listening() == before


def test_a_board_that_says_nothing_of_usb(root: Path) -> None:
    with opened(root, "without") as board:
        assert "usb" not in board.features
        with pytest.raises(Unsupported, match=r"add to \[target.without\] usb = \{address"):
            _ = board.usb
