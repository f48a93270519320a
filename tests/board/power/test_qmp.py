"""A QEMU of somebody's, by its QMP socket; and sockets that are none."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pytest_hil import process
from pytest_hil.board.power.qmp import QmpOptions, QmpPower
from pytest_hil.board.power.switch import PowerError, Switch, SwitchOptions
from pytest_hil.config.driver import Section
from pytest_hil.errors import ConfigError

QEMU = "qemu-system-x86_64"
# mov dx, 0x604; mov ax, 0x2000; out dx, ax; hlt; jmp: ACPI's "off" on a PC of QEMU's.
SWITCHES_OFF = bytes.fromhex("ba0406 b80020 ef f4 ebfd").ljust(510, b"\0") + b"\x55\xaa"
PATIENT = 30.0


class Machine:
    """A QEMU with a QMP socket that listens before it runs."""

    def __init__(self, path: str | None, *more: str) -> None:
        if path is None:
            self.listening = socket.create_server(("127.0.0.1", 0))
            self.address: str | tuple[str, int] = self.listening.getsockname()
        else:
            self.listening = socket.socket(socket.AF_UNIX)
            self.listening.bind(path)
            self.listening.listen()
            self.address = path
        fd = self.listening.fileno()
        argv = [QEMU, "-S", "-display", "none", "-nodefaults", "-accel", "tcg", "-m", "16"]
        argv += ["-chardev", f"socket,id=qmp,fd={fd},server=on,wait=off"]
        argv += ["-mon", "chardev=qmp,mode=control", *more]
        self.process = process.start(argv, pass_fds=[fd])
        self.listening.close()

    def power(self, *, timeout: float = PATIENT) -> QmpPower:
        return QmpPower(QmpOptions(self.address, timeout))

    def status(self) -> str:
        """What QEMU calls it, asked without the driver."""
        made = socket.socket(socket.AF_UNIX if isinstance(self.address, str) else socket.AF_INET)
        with made, made.makefile("rwb", buffering=0) as stream:
            made.connect(self.address)
            stream.readline()
            for command in ("qmp_capabilities", "query-status"):
                stream.write(json.dumps({"execute": command}).encode())
                answer = {}
                while "return" not in answer:
                    answer = json.loads(stream.readline())
        return str(answer["return"]["status"])


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Callable[..., Machine]]:
    made: list[Machine] = []

    def make(*more: str, tcp: bool = False) -> Machine:
        made.append(Machine(None if tcp else str(tmp_path / f"{len(made)}.sock"), *more))
        return made[-1]

    yield make
    for one in made:
        one.process.end()


@pytest.mark.machine
@pytest.mark.parametrize("tcp", [False, True])
def test_off_and_on(machine: Callable[..., Machine], tcp: bool) -> None:
    one = machine(tcp=tcp)
    power = one.power()
    assert power.read() is False, "its owner started it with -S"
    switch = Switch(power, SwitchOptions(retries=0, off_seconds=0.0), name="dut")
    switch.on()
    assert one.status() == "running"
    switch.off()
    assert one.status() == "paused"
    switch.off()
    switch.cycle()
    assert power.read() is True
    power.close()
    power.close()


@pytest.mark.machine
def test_on_is_from_the_reset_vector_but_only_from_off(machine: Callable[..., Machine]) -> None:
    """How often it was reset is what a subscriber of its events sees."""
    one = machine()
    power = one.power()
    power.on()
    power.off()
    counted = _resets_during(one, power.on)
    assert counted == 1
    assert _resets_during(one, power.on) == 0


def _resets_during(one: Machine, act: Callable[[], None]) -> int:
    from qemu.qmp import QMPClient

    # QEMU tells events to who is connected: that is the driver, so its own client is watched.
    seen: list[str] = []
    real = QMPClient._on_message

    async def watch(self: QMPClient, msg: object) -> None:
        seen.append(str(dict(msg).get("event")))  # type: ignore[call-overload]
        await real(self, msg)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(QMPClient, "_on_message", watch)
        act()
    return seen.count("RESET")


@pytest.mark.machine
def test_a_guest_that_switches_itself_off(machine: Callable[..., Machine], tmp_path: Path) -> None:
    """QEMU refuses to go on then, before the reset is over."""
    disk = tmp_path / "disk"
    disk.write_bytes(SWITCHES_OFF)
    one = machine("-no-shutdown", "-drive", f"file={disk},format=raw,if=ide")
    power = one.power()
    for _ in range(3):
        power.on()
        until = time.monotonic() + PATIENT
        while (status := one.status()) != "shutdown" and time.monotonic() < until:
            time.sleep(0.05)
        assert status == "shutdown"
        assert power.read() is False


@pytest.mark.machine
def test_another_client_has_the_socket(machine: Callable[..., Machine]) -> None:
    one = machine()
    assert isinstance(one.address, str)
    with socket.socket(socket.AF_UNIX) as other:
        other.connect(one.address)
        other.recv(1000)
        with pytest.raises(PowerError, match=r"did not answer within 0.5 s") as caught:
            one.power(timeout=0.5).on()
        assert "one client" in caught.value.mend
    assert one.power().read() is False


@pytest.mark.machine
def test_it_has_ended(machine: Callable[..., Machine]) -> None:
    one = machine()
    power = one.power()
    power.on()
    one.process.end()
    with pytest.raises(PowerError, match="no QEMU can be spoken to at") as caught:
        power.off()
    assert "-no-shutdown" in caught.value.mend


@pytest.mark.machine
def test_it_refuses(machine: Callable[..., Machine]) -> None:
    """One that is still being configured by its owner has nothing to reset."""
    power = machine("--preconfig").power()
    with pytest.raises(PowerError, match=r"the QEMU at .* refused: .*permitted only after"):
        power.on()


@pytest.mark.machine
def test_without_reboots(machine: Callable[..., Machine]) -> None:
    one = machine("-no-reboot", "-no-shutdown")
    began = time.monotonic()
    with pytest.raises(PowerError, match="switches off where it should reset") as caught:
        one.power().on()
    assert time.monotonic() - began < PATIENT / 2, "it does not wait for what cannot come"
    assert caught.value.mend == "start it without -no-reboot"


@pytest.mark.machine
def test_with_an_event_loop_that_runs(machine: Callable[..., Machine]) -> None:
    power = machine().power()

    async def main() -> bool:
        return power.read()

    assert asyncio.run(main()) is False


# --- sockets that are no QEMU's ---


def test_nobody_is_there(tmp_path: Path) -> None:
    power = QmpPower(QmpOptions(str(tmp_path / "none.sock")))
    with pytest.raises(PowerError, match=r"no QEMU can be spoken to at .*none.sock: "):
        power.on()


class Peer:
    """Says the same to everybody who comes, and then hangs up or is silent."""

    def __init__(self, says: bytes, *, stays: bool) -> None:
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.address: tuple[str, int] = self._listening.getsockname()
        self._says, self._stays = says, stays
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        with self._listening:
            client, _ = self._listening.accept()
            with client:
                client.sendall(self._says)
                try:
                    while self._stays and client.recv(1000):
                        pass
                except OSError:
                    pass

    def join(self) -> None:
        self._thread.join(PATIENT)
        assert not self._thread.is_alive()


GREETING = b'{"QMP": {"version": {"qemu": {"major": 7, "minor": 2, "micro": 0}, "package": ""}, '
GREETING += b'"capabilities": []}}\r\n'


@pytest.mark.parametrize(
    ("says", "stays", "error"),
    [
        (b"", True, r"did not answer within 0.3 s"),
        (GREETING, True, r"did not answer within 0.3 s"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", True, "no QEMU can be spoken to"),
        (b'{"hello": 1}\r\n', True, "no QEMU can be spoken to"),
        (b"", False, "no QEMU can be spoken to"),
        (GREETING, False, "no QEMU can be spoken to"),
    ],
)
def test_no_qemu(says: bytes, stays: bool, error: str) -> None:
    peer = Peer(says, stays=stays)
    with pytest.raises(PowerError, match=error) as caught:
        QmpPower(QmpOptions(peer.address, 0.3)).on()
    assert f"127.0.0.1:{peer.address[1]}" in caught.value.message
    peer.join()


def test_it_says_nothing_in_the_log(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    """qemu.qmp tells of each connection that fails as an error."""
    with pytest.raises(PowerError):
        QmpPower(QmpOptions(str(tmp_path / "none.sock"))).read()
    assert caplog.text == ""


@pytest.mark.parametrize(
    ("written", "wanted"),
    [("/run/qmp.sock", "/run/qmp.sock"), ("lab1:4444", ("lab1", 4444)), ("[::1]:1", ("::1", 1))],
)
def test_addresses(written: str, wanted: str | tuple[str, int]) -> None:
    section = Section("boards.toml", "[target.dut.power]", "qmp", {"socket": written}, Path())
    assert section.options(QmpOptions) == QmpOptions(wanted)


@pytest.mark.parametrize("written", ["qmp.sock", "lab1:", 4444])
def test_wrong_addresses(written: object) -> None:
    section = Section("boards.toml", "[target.dut.power]", "qmp", {"socket": written}, Path())
    with pytest.raises(ConfigError, match=r"\[target.dut.power\] socket"):
        section.options(QmpOptions)
