"""Serial lines: ptys, a real RFC 2217 server of pyserial's, and what is wrong with ports."""

from __future__ import annotations

import ctypes
import fcntl
import grp
import os
import socket
import struct
import subprocess
import sys
import termios
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_hil.board.console import ports
from pytest_hil.board.console.open import open_console
from pytest_hil.board.console.ports import Port
from pytest_hil.board.console.serial import SerialConsole, SerialOptions
from pytest_hil.config.driver import Section
from pytest_hil.console.session import Console
from pytest_hil.errors import ChannelLost, ConfigError, InfrastructureError

if TYPE_CHECKING:
    from tests.board.console.conftest import Board

serial = pytest.importorskip("serial")
MiB = 2**20
ALL = bytes(range(256))


def opened(port: str, **options: Any) -> Console:
    return Console(SerialConsole(SerialOptions(port, **options)).open(), name="dut", grace=0.1)


def attributes(board: Board) -> list[Any]:
    return termios.tcgetattr(board.slave)


# --- a port of this host ---


def test_what_was_said_before_it_was_open_is_there(board: Board) -> None:
    """pyserial's own open() discards it."""
    board.says(b"U-Boot SPL\n")
    with opened(board.port) as console:
        assert console.expect("SPL", timeout=10)


def test_every_byte_passes_both_ways_and_nothing_is_echoed(board: Board) -> None:
    assert attributes(board)[3] & termios.ECHO, "as the kernel makes a tty"
    with opened(board.port) as console:
        board.says(ALL + b"end")
        console.expect("end", timeout=10)
        assert console.raw_after(0)[1] == ALL + b"end"
        assert not board.has_heard()
        console.send(ALL)
        assert board.hears(256) == ALL


def test_a_cooked_tty_is_made_raw_and_keeps_dtr(board: Board) -> None:
    cooked = attributes(board)
    cooked[0] |= termios.BRKINT | termios.IXON | termios.IMAXBEL | termios.ISTRIP
    cooked[2] |= termios.HUPCL
    cooked[3] |= termios.ECHO | termios.ICANON | termios.ISIG
    termios.tcsetattr(board.slave, termios.TCSANOW, cooked)
    with opened(board.port, baudrate=9600):
        iflag, oflag, cflag, lflag, ispeed, ospeed, cc = attributes(board)
        assert iflag & (termios.BRKINT | termios.IXON | termios.IMAXBEL | termios.ISTRIP) == 0
        assert oflag & termios.OPOST == 0
        assert cflag & termios.HUPCL == 0
        assert lflag & (termios.ECHO | termios.ICANON | termios.ISIG) == 0
        assert (ispeed, ospeed) == (termios.B9600, termios.B9600)
        assert cc[termios.VMIN] in (1, b"\x01")


def test_a_speed_that_posix_does_not_know(board: Board) -> None:
    with opened(board.port, baudrate=250_000):
        # struct termios2 (asm-generic/termbits.h): the last two are c_ispeed and c_ospeed.
        found = fcntl.ioctl(board.slave, 0x802C542A, bytes(44))
        assert struct.unpack("=2I", found[-8:]) == (250_000, 250_000)


def test_settings_that_a_port_does_not_take(board: Board) -> None:
    """A pty has 8 bits and no parity, and says so only to who asks what it took."""
    for wrong in ({"bytesize": 7}, {"parity": "even"}):
        for _ in range(2):  # at first it took something, then nothing at all
            with pytest.raises(InfrastructureError, match=r"does not take .*: 300 baud") as caught:
                opened(board.port, baudrate=300, **wrong)
            assert board.port in caught.value.message
    with opened(board.port, baudrate=300) as console:
        console.send("x")
        assert board.hears(1) == b"x"


def test_flow_control(board: Board) -> None:
    with opened(board.port, xonxoff=True, rtscts=True):
        found = attributes(board)
        assert found[0] & termios.IXON
        assert found[2] & termios.CRTSCTS


def test_lines_that_a_port_does_not_have_are_no_error(board: Board) -> None:
    with opened(board.port, dtr=False, rts=True) as console:
        console.send("x")
        assert board.hears(1) == b"x"


@pytest.mark.parametrize("state", [True, False, None])
def test_dtr_and_rts_are_set_only_when_asked_for(
    board: Board, state: bool | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pty has no such lines: what pyserial tells the kernel is what can be seen."""
    real, told = fcntl.ioctl, []

    def ioctl(fd: int, request: int, *rest: Any) -> Any:
        told.append((request, *rest))
        return real(fd, request, *rest)

    monkeypatch.setattr(fcntl, "ioctl", ioctl)
    with opened(board.port, dtr=state, rts=state):
        pass
    request = {True: termios.TIOCMBIS, False: termios.TIOCMBIC}.get(state or False)
    lines = [
        struct.pack("I", line)
        for line in (termios.TIOCM_DTR, termios.TIOCM_RTS)
        if state is not None
    ]
    seen = [one for one in told if one[0] in (termios.TIOCMBIS, termios.TIOCMBIC)]
    # pyserial gives up at the first line that a port does not have.
    assert seen == [(request, line) for line in lines][: len(seen)]
    assert bool(seen) == (state is not None)


def test_50_mb(board: Board, flooded: Callable[[Console, int, int], None]) -> None:
    with opened(board.port) as console:
        flooded(console, board.master, 50 * MiB)


def test_it_ends_with_its_board(board: Board) -> None:
    with opened(board.port) as console:
        board.says(b"last words")
        console.expect("last words", timeout=10)
        board.vanish()
        assert console.wait_closed(10)


# --- somebody else has it ---

HOLD = """
import serial, sys
port = serial.Serial(sys.argv[1], exclusive=True)
print("mine", flush=True)
sys.stdin.read()
"""


@contextmanager
def held(port: str) -> Iterator[int]:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, port], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with holder:
        assert holder.stdout is not None
        assert holder.stdin is not None
        assert holder.stdout.readline() == b"mine\n"
        yield holder.pid
        holder.stdin.close()


def test_who_has_it(board: Board) -> None:
    with held(board.port) as pid:
        with pytest.raises(InfrastructureError) as caught:
            opened(board.port)
        assert f"{board.port} is in use by process {pid} (" in caught.value.message
        assert "import serial" in caught.value.message
        assert f"kill {pid}" in caught.value.mend
    with opened(board.port) as console:
        console.send("free")
        assert board.hears(4) == b"free"


def test_nobody_gets_it_while_it_is_ours(board: Board) -> None:
    with opened(board.port):
        other = subprocess.run(
            [sys.executable, "-c", HOLD, board.port],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=20,
        )
        assert other.returncode != 0
        assert "exclusively lock" in other.stderr
        with pytest.raises(InfrastructureError, match="in use, by this run itself"):
            opened(board.port)
    with held(board.port):
        pass


def test_the_kernel_is_told_that_it_is_exclusive_and_then_not(board: Board) -> None:
    # <asm-generic/ioctls.h>; not in Python's termios.
    tiocgexcl = 0x80045440
    with opened(board.port):
        assert struct.unpack("i", fcntl.ioctl(board.slave, tiocgexcl, bytes(4))) == (1,)
    assert struct.unpack("i", fcntl.ioctl(board.slave, tiocgexcl, bytes(4))) == (0,)


def test_holders_are_found_by_a_link_too(tmp_path: Path, board: Board) -> None:
    link = tmp_path / "port"
    link.symlink_to(board.port)
    assert ports.holders(str(link)) == []
    with held(board.port) as pid:
        assert [holder.pid for holder in ports.holders(str(link))] == [pid]


# --- wrong ports ---


def test_a_port_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ChannelLost, match=r"there is no serial port /.*/ttyUSB7") as caught:
        opened(str(tmp_path / "ttyUSB7"))
    assert "plugged in" in caught.value.mend or "did you mean" in caught.value.mend


def test_what_is_no_port() -> None:
    with pytest.raises(InfrastructureError, match="/dev/null is no serial port"):
        opened("/dev/null")


@contextmanager
def without_rights() -> Iterator[None]:
    """Root may open anything; setfsuid(2) takes that from this thread only."""
    libc = ctypes.CDLL(None)
    mine = os.geteuid()
    libc.setfsuid(65534 if mine == 0 else mine)
    try:
        yield
    finally:
        libc.setfsuid(mine)


@pytest.mark.parametrize("mode", [0o000, 0o020])
def test_a_port_of_another_group(board: Board, mode: int) -> None:
    info = os.fstat(board.slave)
    group = grp.getgrgid(info.st_gid).gr_name if mode and info.st_gid else "dialout"
    os.fchmod(board.slave, mode)
    with (
        pytest.raises(InfrastructureError, match=f"this user may not open {board.port}") as caught,
        without_rights(),
    ):
        opened(board.port)
    assert caught.value.mend == f"sudo usermod -a -G {group} $USER, then log in again"


def test_pyserial_is_not_installed(board: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "serial", None)
    with pytest.raises(InfrastructureError, match="pyserial is not installed") as caught:
        opened(board.port)
    assert "pytest-hil[serial]" in caught.value.mend


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ({}, "console] port: missing"),
        ({"port": "ttyUSB0"}, "'ttyUSB0' is no serial port"),
        ({"port": "loc:usb1"}, "'loc:usb1' is no serial port"),
        ({"port": "usb:0403"}, "'usb:0403' is no serial port"),
        ({"port": "socket://lab1"}, "'lab1' is no address"),
        ({"port": "/dev/ttyS0", "parity": "yes"}, "'yes' is no word"),
        ({"port": "/dev/ttyS0", "stopbits": 3}, "3 is no number of stop bits"),
        ({"port": "/dev/ttyS0", "baudrate": "fast"}, "baudrate: found 'fast'"),
        ({"port": "/dev/ttyS0", "baud": 9600}, "unknown key"),
    ],
)
def test_keys(section: Callable[..., Section], written: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        section("serial", **written).options(SerialOptions)
    assert said in str(caught.value)


THERE = [
    Port("/dev/ttyS0"),
    Port("/dev/ttyUSB0", "/dev/serial/by-id/usb-A", "1-1.4", 0x0403, 0x6001, "A50285BI"),
    Port("/dev/ttyUSB1", "/dev/serial/by-id/usb-B", "1-1.10", 0x0403, 0x6001, "B1"),
    Port("/dev/ttyUSB2", "", "1-2:1.0", 0x0403, 0x6011, "FT4"),
    Port("/dev/ttyUSB3", "", "1-2:1.1", 0x0403, 0x6011, "FT4"),
]


@pytest.mark.parametrize(
    ("wanted", "device"),
    [
        ("/dev/ttyANY", "/dev/ttyANY"),
        ("loc:1-1.4", "/dev/ttyUSB0"),
        ("loc:1-1.10", "/dev/ttyUSB1"),
        ("loc:1-2:1.1", "/dev/ttyUSB3"),
        ("usb:0403:6001:B1", "/dev/ttyUSB1"),
    ],
)
def test_which_port_is_meant(wanted: str, device: str) -> None:
    assert ports.find(wanted, THERE) == device


def test_several_ports_are_meant() -> None:
    for wanted in ("loc:1-2", "usb:0403:6011", "usb:0403:6011:FT4"):
        with pytest.raises(InfrastructureError, match="is 2 serial ports") as caught:
            ports.find(wanted, THERE)
        assert "/dev/ttyUSB3 (loc:1-2:1.1, usb:0403:6011:FT4)" in str(caught.value)


@pytest.mark.parametrize("wanted", ["loc:1-1", "loc:1-1.1", "usb:0403:6001:NONE", "usb:dead:beef"])
def test_no_port_is_meant(wanted: str) -> None:
    with pytest.raises(
        ChannelLost, match=f"there is no serial port {wanted}; there are:"
    ) as caught:
        ports.find(wanted, THERE)
    assert "/dev/ttyUSB0 (/dev/serial/by-id/usb-A, loc:1-1.4, usb:0403:6001:A50285BI)" in str(
        caught.value
    )


def test_the_near_name_and_no_port_at_all() -> None:
    assert ports.missing("/dev/serial/by-id/usb-a", THERE).mend.startswith("did you mean '/dev/ser")
    assert "none at all" in str(ports.missing("/dev/ttyUSB0", []))


def test_the_ports_of_this_host_are_there() -> None:
    assert [port for port in ports.ports() if not Path(port.device).exists()] == []


def test_names_by_id(tmp_path: Path, board: Board) -> None:
    (tmp_path / "usb-X").symlink_to(board.port)
    assert ports.by_id(tmp_path) == {board.port: str(tmp_path / "usb-X")}
    assert ports.by_id(tmp_path / "none") == {}


# --- URLs of pyserial ---


class WithLines(serial.Serial):  # type: ignore[misc,name-defined]
    """A pty has no modem lines; a server of RFC 2217 asks for them."""

    cts = dsr = ri = cd = property(lambda _self: False)
    purged = 0

    def reset_input_buffer(self) -> None:
        self.purged += 1

    reset_output_buffer = reset_input_buffer

    def _update_dtr_state(self) -> None:
        pass

    _update_rts_state = _update_dtr_state


class Rfc2217Server:
    """One client at a time, as pyserial's example server does it, on a pty."""

    def __init__(self, port: str) -> None:
        self.serial = WithLines(port, timeout=0.02)
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.url = f"rfc2217://127.0.0.1:{self._listening.getsockname()[1]}"
        self.client: socket.socket | None = None
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def write(self, data: bytes) -> None:
        """PortManager's way to answer."""
        assert self.client is not None
        self.client.sendall(data)

    def hang_up(self) -> None:
        assert self.client is not None
        self.client.shutdown(socket.SHUT_RDWR)

    def _serve(self) -> None:
        from serial.rfc2217 import PortManager  # type: ignore[import-untyped,unused-ignore]

        while True:
            try:
                self.client, _ = self._listening.accept()
            except OSError:
                return
            manager = PortManager(self.serial, self)
            stop = threading.Event()
            out = threading.Thread(target=self._out, args=(manager, stop))
            out.start()
            try:
                while data := self.client.recv(1024):
                    self.serial.write(b"".join(manager.filter(data)))
            except OSError:
                pass
            stop.set()
            out.join()
            self.client.close()

    def _out(self, manager: Any, stop: threading.Event) -> None:
        while not stop.is_set():
            data = self.serial.read(1) + self.serial.read(self.serial.in_waiting)
            try:
                self.write(b"".join(manager.escape(data)))
            except OSError:
                return

    def close(self) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self._thread.join(10)
        self.serial.close()


@pytest.fixture
def remote(board: Board) -> Iterator[Rfc2217Server]:
    server = Rfc2217Server(board.port)
    yield server
    server.close()


def test_rfc2217(board: Board, remote: Rfc2217Server) -> None:
    with opened(remote.url, baudrate=38400, stopbits=2, rtscts=True) as console:
        board.says(ALL + b"end")
        console.expect("end", timeout=10)
        assert console.raw_after(0)[1] == ALL + b"end"
        console.send(ALL)
        assert board.hears(256) == ALL  # 0xFF is doubled on the way, and one again
        got = remote.serial
        assert (got.baudrate, got.bytesize, got.parity, got.stopbits) == (38400, 8, "N", 2)
        assert (got.xonxoff, got.rtscts) == (False, True)


def test_rfc2217_says_why_it_ended(board: Board, remote: Rfc2217Server) -> None:
    with opened(remote.url) as console:
        board.says(b"x" * 5000 + b"end")
        console.expect("end", timeout=10)
        remote.hang_up()
        with pytest.raises(ChannelLost, match=f"broke: {remote.url}: "):
            console.expect("more", timeout=10)


def test_rfc2217_leaves_dtr_alone_unless_told(board: Board, remote: Rfc2217Server) -> None:
    # What the server has of the client's wishes: pyserial's own client says "on" unasked.
    remote.serial._dtr_state = remote.serial._rts_state = False
    with opened(remote.url):
        assert (remote.serial.dtr, remote.serial.rts) == (False, False)


@pytest.mark.filterwarnings("ignore:set.* is deprecated:DeprecationWarning")
def test_rfc2217_discards_nothing(remote: Rfc2217Server) -> None:
    """pyserial's own open() lets the server throw away what the board has said."""
    with opened(remote.url):
        assert remote.serial.purged == 0
    client = serial.serial_for_url(remote.url)
    client.close()
    assert remote.serial.purged > 0, "this server does not see it"


def test_a_server_that_does_not_speak_rfc2217() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        pytest.raises(ChannelLost, match="RFC2217") as caught,
    ):
        opened(f"rfc2217://127.0.0.1:{server.getsockname()[1]}?timeout=0.2")
    assert "speak RFC 2217" in caught.value.mend


def test_nobody_serves_rfc2217() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        number = server.getsockname()[1]
    with pytest.raises(ChannelLost, match=f"127.0.0.1:{number} .*: the connection is refused"):
        opened(f"rfc2217://127.0.0.1:{number}")


def test_a_url_that_pyserial_does_not_know() -> None:
    with pytest.raises(InfrastructureError, match=r"pigeon.* not known"):
        opened("pigeon://coop")


def test_loop() -> None:
    with opened("loop://") as console:
        console.send("there and back")
        console.expect("back", timeout=10)


def test_a_url_of_a_real_port(board: Board) -> None:
    with opened(f"spy://{board.port}?file=/dev/null") as console:
        board.says(b"hello")
        console.expect("hello", timeout=10)
        console.send("you")
        assert board.hears(3) == b"you"


def test_a_socket_url() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        opened(f"socket://127.0.0.1:{server.getsockname()[1]}") as console,
        server.accept()[0] as target,
    ):
        target.sendall(b"\xff\xfb\x01 raw")
        console.expect("raw", timeout=10)
        console.send("x")
        assert target.recv(10) == b"x"


def test_open_console(board: Board, section: Callable[..., Section]) -> None:
    with open_console(section("serial", port=board.port, patience=3), name="dut") as console:
        board.says(b"login: ")
        console.expect("login:", timeout=10)
        console.sendline("root")
        assert board.hears(5) == b"root\n"
