"""USB devices at a board: an emulated PC that we know by its serial line and its network only."""

from __future__ import annotations

import hashlib
import json
import os
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

from pytest_hil import process
from pytest_hil.bench import Bench, Settings
from pytest_hil.board.board import Board
from pytest_hil.cache import Cache
from pytest_hil.config import DebianImage
from pytest_hil.errors import AttachFailed, NotThere, Unsupported
from pytest_hil.lab.lease import DIRECTORY
from pytest_hil.progress import silent
from pytest_hil.qemu.hardware import AGENT_PORT
from pytest_hil.qemu.image import resolve
from pytest_hil.rig.outside import HeldPort
from pytest_hil.usbip.events import parse_lines
from pytest_hil.usbip.exporter import Exporter
from pytest_hil.usbip.virtual.cdc_acm import SerialPort
from pytest_hil.usbip.virtual.hid import Keyboard, Mouse
from pytest_hil.usbip.virtual.mass_storage import MassStorage

pytestmark = pytest.mark.machine

PATIENCE = 60.0
# This host, as QEMU's user network has it for its guest, whose connections come from loopback.
HOST = "10.0.2.2"
NODES = ("event", "ttyACM", "sd", "event")
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
    "ssh": f"""
usb = {{address = "{HOST}", listen = "127.0.0.1"}}
shell = {{driver = "ssh", host = "127.0.0.1", port = PORT, identity = "key", known_hosts = "known"}}
""",
}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where a board that nobody has switched on is described, in several ways."""
    directory = tmp_path_factory.mktemp("board")
    image = DebianImage(name="usb-board", packages=("bash", "dash", "dropbear-bin"))
    built = resolve(image, arch="x86_64", cache=Cache.default(), progress=silent)
    sockets = {name: directory / name for name in ("console", "qmp")}
    text = "".join(TARGET.format(name=name, usb=usb, **sockets) for name, usb in USB.items())
    ssh = HeldPort()
    (directory / "boards.toml").write_text(text.replace("PORT", str(ssh.number)))
    argv = [
        *("qemu-system-x86_64", "-S", "-no-shutdown", "-nodefaults", "-display", "none"),
        *("-machine", "q35", "-accel", "tcg", "-cpu", "max,-erms", "-m", "256M"),
        *("-kernel", str(built.kernel), "-initrd", str(built.initrd), "-append", built.append),
        *("-netdev", f"user,id=net,hostfwd=tcp:127.0.0.1:{ssh.number}-:22"),
        *("-device", "virtio-net-pci,netdev=net,romfile="),
        # Its agent has nobody to speak to.
        *("-device", "virtio-serial-pci", "-chardev", "null,id=agent"),
        *("-device", f"virtserialport,chardev=agent,name={AGENT_PORT}"),
    ]
    with ExitStack() as everything:
        everything.callback(ssh.close)
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


def test_a_restart_by_itself_takes_the_devices(board: Board) -> None:
    """Known by a boot loader's first line, which this machine's firmware does not say."""
    attached = board.usb.attach(Keyboard())
    with board.crashes("unexpected reset: U-Boot"):
        board.console.sendline("echo 'U-Boot 2024.01 (Jan 08 2024)'; echo 'DRAM:  1 GiB'")
    assert attached.lost == "the board restarted by itself"
    board.boot()
    assert board.usb.list() == []


def test_the_end_of_a_test_takes_the_devices(root: Path) -> None:
    with opened(root) as board:
        attached = board.usb.attach(SerialPort())
    assert attached.lost == "it was detached"
    assert [one.name for one in threading.enumerate() if one.name.startswith("hil-usb")] == []
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


EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "test_usb.py"

RUN = """
import sys
from pathlib import Path
from pytest_hil.bench import Bench, Settings
from pytest_hil.usbip.virtual.cdc_acm import SerialPort

root = Path(sys.argv[1])
with Bench(Settings(root=root, lab=root / "lab")) as bench:
    attached = bench.open(bench.describe("board")).usb.attach(SerialPort())
    print(attached.node("ttyACM"), flush=True)
    sys.stdin.read()
"""


def test_a_run_of_pytest(root: Path, tmp_path: Path) -> None:
    """The test that plugs a device into a machine does so at a board."""
    argv = [
        *(sys.executable, "-m", "pytest", "-p", "no:cacheprovider", str(EXAMPLE), "-rs"),
        *("-k", "test_a_serial_port", f"--rootdir={tmp_path}"),
        *(f"--hil-boards={root / 'boards.toml'}", "--hil-target=board"),
        *(f"--hil-artifacts={tmp_path / 'runs'}", f"--hil-usb-log={tmp_path / 'log'}"),
    ]
    env = {**os.environ, DIRECTORY: str(root / "lab")}
    done = subprocess.run(
        argv, cwd=tmp_path, env=env, capture_output=True, text=True, check=False, timeout=200
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 passed" in done.stdout
    assert len(list(tmp_path.glob("runs/*/*/usb.pcap"))) == 1
    (events,) = tmp_path.glob("runs/*/*test_a_serial_port*/events.jsonl")
    told = [json.loads(line) for line in events.read_text().splitlines()]
    assert "attach" in [one["what"] for one in told if one["kind"] == "usb"]
    log = parse_lines((tmp_path / "log").read_text().splitlines())
    assert [one.what for one in log].count("detach") == 1


def test_a_killed_run(root: Path) -> None:
    argv = [sys.executable, "-c", RUN, str(root)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as run:
        assert run.stdout is not None
        assert run.stdout.readline() == b"/dev/ttyACM0\n"
        run.kill()
    with opened(root) as board:
        port = SerialPort(timeout=PATIENCE)
        with board.usb.attach(port) as attached:
            assert len(board.usb.list()) == 1
            tty = attached.node("ttyACM0")
            board.run(f"stty -F {tty} raw -echo; echo next > {tty}")
            assert port.readline() == b"next\n"


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


def test_several_at_once_over_ssh(root: Path) -> None:
    with opened(root) as board:
        key = root / "key"
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
        public = (root / "key.pub").read_text()
        board.run("umask 077; mkdir -p ~/.ssh; cat > ~/.ssh/authorized_keys", input=public)
        board.run("mkdir -p /etc/dropbear")
        board.run("dropbearkey -t ed25519 -f /etc/dropbear/key")
        board.run("dropbear -r /etc/dropbear/key")
        found = board.run("dropbearkey -y -f /etc/dropbear/key").stdout
        public = next(line for line in found.splitlines() if line.startswith("ssh-"))
    port = re.search(r"port = (\d+)", (root / "boards.toml").read_text())
    assert port
    (root / "known").write_text(f"[127.0.0.1]:{port[1]} {public}\n")
    with opened(root, "ssh") as board:
        devices = [Keyboard(), SerialPort(), MassStorage(2**16), Mouse()]
        with ThreadPoolExecutor() as threads:
            attached = list(threads.map(board.usb.attach, devices))
        assert len({one.port for one in attached}) == len(board.usb.list()) == len(devices)
        assert [bool(one.node(name)) for one, name in zip(attached, NODES, strict=True)]
        board.usb.detach()
        assert board.usb.list() == []


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


@pytest.mark.parametrize("shell", ["dash", "bash"])
def test_a_board_with_another_shell(board: Board, shell: str) -> None:
    before = board.run("readlink -f /bin/sh").stdout.strip()
    board.run(f"ln -sf $(command -v {shell}) /bin/sh")
    try:
        assert shell in board.run(["/bin/sh", "-c", "readlink /proc/$$/exe; :"]).stdout
        stick = MassStorage(2**16)
        with board.usb.attach(stick) as attached, board.usb.attach(SerialPort()) as other:
            assert attached.node("sd")
            assert other.node("ttyACM")
            attached.replug()
            assert len(board.usb.list()) == 2
        with without(board, USBIP, *["/bin/bash"] * (shell == "dash")):
            with board.usb.attach(SerialPort()) as attached:
                assert attached.node("ttyACM")
            with pytest.raises(AttachFailed, match="does not give 9-9 away"), Exporter() as theirs:
                board.usb.attach_remote("{}:{}".format(*theirs.address), "9-9")
        assert board.usb.list() == []
    finally:
        board.run(f"ln -sf {before} /bin/sh")


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


def test_a_board_whose_udev_loads_the_driver(board: Board) -> None:
    board.run("rmmod cdc_acm")
    script = '#!/bin/sh\n[ "$1" = settle ] && modprobe cdc-acm && echo "$2" > /tmp/settled\n'
    board.run("cat > /usr/local/bin/udevadm; chmod +x /usr/local/bin/udevadm", input=script)
    try:
        with board.usb.attach(SerialPort()) as attached:
            assert attached.node("ttyACM")
            assert set(attached.interfaces.values()) == {"cdc_acm"}
        assert re.fullmatch(r"--timeout=(2\d|30)\n", board.run("cat /tmp/settled").stdout)
    finally:
        board.run("rm /usr/local/bin/udevadm")


def test_a_board_without_the_module(board: Board) -> None:
    module = board.run("find /lib/modules -name 'vhci[-_]hcd.ko*'").stdout.strip()
    with without(board, module):
        attached = board.usb.attach(Keyboard())
        board.run("rmmod vhci_hcd")
        attached.detach()
        with pytest.raises(AttachFailed, match="its kernel has no vhci_hcd"):
            board.usb.attach(Keyboard())
        assert board.usb.list() == []
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
