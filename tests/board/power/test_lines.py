"""DTR and RTS, seen by a real RFC 2217 server of pyserial's; ptys have no such lines."""

from __future__ import annotations

import fcntl
import os
import socket
import sys
import termios
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest

from pytest_hil.board.power.lines import LinesOptions, LinesPower
from pytest_hil.board.power.switch import PowerError, Switch, SwitchOptions
from pytest_hil.config.driver import Section
from pytest_hil.errors import ConfigError, InfrastructureError

serial = pytest.importorskip("serial")

pytestmark = pytest.mark.filterwarnings("ignore:set.* is deprecated:DeprecationWarning")


class Lines(serial.Serial):  # type: ignore[misc,name-defined,unused-ignore]
    """The server's port, whose lines are what somebody set last, and when."""

    def __init__(self, port: str) -> None:
        self.told: list[tuple[str, bool]] = []
        super().__init__(port, timeout=0.02)
        self.told.clear()

    def _update_dtr_state(self) -> None:
        self.told.append(("dtr", self._dtr_state))

    def _update_rts_state(self) -> None:
        self.told.append(("rts", self._rts_state))

    # A pty has none of these.
    cts = dsr = ri = cd = property(lambda _self: False)


class Server:
    """An RFC 2217 server for one client after the other."""

    def __init__(self) -> None:
        self.master, self.slave = os.openpty()
        self.port = Lines(os.ttyname(self.slave))
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.url = f"rfc2217://127.0.0.1:{self._listening.getsockname()[1]}"
        self.client: socket.socket | None = None
        self.gone = threading.Event()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def write(self, data: bytes) -> None:
        """PortManager's way to answer."""
        assert self.client is not None
        self.client.sendall(data)

    def _serve(self) -> None:
        from serial.rfc2217 import PortManager  # type: ignore[import-untyped,unused-ignore]

        while True:
            try:
                self.client, _ = self._listening.accept()
            except OSError:
                return
            with self.client:
                self.gone.clear()
                manager = PortManager(self.port, self)
                try:
                    while data := self.client.recv(1024):
                        b"".join(manager.filter(data))
                except OSError:
                    pass
            self.gone.set()

    def hang_up(self) -> None:
        assert self.client is not None
        self.client.shutdown(socket.SHUT_RDWR)
        assert self.gone.wait(10)

    def stop(self) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self._thread.join(10)

    def close(self) -> None:
        self.port.close()
        os.close(self.master)
        os.close(self.slave)


@pytest.fixture
def server() -> Iterator[Server]:
    one = Server()
    yield one
    if one._thread.is_alive():
        one.stop()
    one.close()


@pytest.fixture
def opened() -> Iterator[Any]:
    made: list[LinesPower] = []

    def make(port: str, line: str = "dtr", *, inverted: bool = False) -> LinesPower:
        made.append(LinesPower(LinesOptions(port, line, inverted)))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.mark.parametrize("line", ["dtr", "rts"])
@pytest.mark.parametrize("inverted", [False, True])
def test_on_and_off(server: Server, opened: Any, line: str, inverted: bool) -> None:
    power = opened(server.url, line, inverted=inverted)
    for on in (False, True, False):
        getattr(power, "on" if on else "off")()
        assert server.port.told[-1] == (line, on is not inverted)
    assert {name for name, _ in server.port.told} == {line}, "the other line is not ours"
    assert power.read() is None, "an RFC 2217 server does not say it"
    power.close()
    assert server.gone.wait(10)
    assert server.port.told[-1] == (line, inverted), "it stays as it is"
    power.close()


def test_off_is_off_from_the_first_moment(server: Server, opened: Any) -> None:
    opened(server.url).off()
    assert server.port.told[0] == ("dtr", False)
    assert set(server.port.told) == {("dtr", False)}


def test_reading_switches_nothing(server: Server, opened: Any) -> None:
    assert opened(server.url).read() is None
    assert server.port.told == []
    assert server.client is None


def test_the_server_hangs_up_and_comes_back(server: Server, opened: Any) -> None:
    power = opened(f"{server.url}?timeout=0.3")
    power.on()
    server.hang_up()
    with pytest.raises(PowerError, match=r"DTR of rfc2217://.* cannot be switched"):
        power.off()
    power.off()
    assert server.port.told[-1] == ("dtr", False)


def test_the_server_is_gone(server: Server, opened: Any) -> None:
    server.stop()
    with pytest.raises(PowerError, match=r"cannot be opened: .*refused"):
        opened(server.url).on()


def test_a_port_without_lines(server: Server, opened: Any) -> None:
    power = opened(os.ttyname(server.slave))
    server.port.close()  # it has locked it
    for _ in range(2):
        with pytest.raises(PowerError, match=r"DTR of /dev/pts/.* cannot be switched"):
            power.on()
    assert power.read() is None


def test_what_the_kernel_is_told(
    server: Server, opened: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pty refuses the lines' ioctls: here it stands for a port whose driver keeps them."""
    real = fcntl.ioctl
    lines = termios.TIOCM_RTS | termios.TIOCM_CTS

    def ioctl(fd: int, request: int, *rest: Any) -> Any:
        nonlocal lines
        if request == termios.TIOCMGET:
            return lines.to_bytes(4, sys.byteorder)
        if request == termios.TIOCMBIS:
            lines |= int.from_bytes(rest[0], sys.byteorder)
            return 0
        if request == termios.TIOCMBIC:
            lines &= ~int.from_bytes(rest[0], sys.byteorder)
            return 0
        return real(fd, request, *rest)

    monkeypatch.setattr(fcntl, "ioctl", ioctl)
    server.port.close()
    attributes = termios.tcgetattr(server.slave)
    attributes[2] |= termios.HUPCL  # as most ports begin
    termios.tcsetattr(server.slave, termios.TCSANOW, attributes)
    port = os.ttyname(server.slave)
    power = opened(port)
    power.on()
    assert lines == termios.TIOCM_DTR | termios.TIOCM_RTS | termios.TIOCM_CTS
    assert power.read() is True
    power.off()
    assert lines == termios.TIOCM_RTS | termios.TIOCM_CTS
    assert power.read() is False
    lines |= termios.TIOCM_DTR  # somebody else's doing
    stuck = Switch(_Stuck(power), SwitchOptions(retries=0), name="dut")
    with pytest.raises(PowerError, match="told off and says on"):
        stuck.off()
    power.close()
    assert not termios.tcgetattr(server.slave)[2] & termios.HUPCL, "or the kernel drops it"
    inverted = opened(port, "rts", inverted=True)
    inverted.on()
    assert not lines & termios.TIOCM_RTS
    assert inverted.read() is True


class _Stuck:
    """A line whose wire is soldered to something else."""

    Options: ClassVar[type] = LinesOptions

    def __init__(self, power: LinesPower) -> None:
        self._power = power
        self.read, self.close = power.read, power.close

    def on(self) -> None:
        pass

    off = on


def test_without_pyserial(monkeypatch: pytest.MonkeyPatch, opened: Any) -> None:
    monkeypatch.setitem(sys.modules, "serial", None)
    with pytest.raises(InfrastructureError, match="pyserial is not installed"):
        opened("/dev/ttyUSB0").on()


@pytest.mark.parametrize(
    ("written", "wrong"),
    [
        ({"port": "/dev/ttyUSB0"}, "line: missing"),
        ({"port": "/dev/ttyUSB0", "line": "cts"}, "allowed here"),
        ({"port": "ttyUSB0", "line": "dtr"}, "is no serial port"),
    ],
)
def test_wrong_keys(written: dict[str, object], wrong: str) -> None:
    section = Section("boards.toml", "[target.dut.power]", "lines", written, Path())
    with pytest.raises(ConfigError, match=wrong):
        section.options(LinesOptions)
