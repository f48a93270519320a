"""PDUs by SNMP: pysnmp's own agent with outlets behind it, and net-snmp's where it is installed."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pytest_hil import process
from pytest_hil.board.power.snmp import Community, SnmpOptions, SnmpPower, agent, community
from pytest_hil.board.power.switch import PowerError, Switch, SwitchOptions, open_switch
from pytest_hil.config.driver import Secret, Section
from pytest_hil.errors import ConfigError, InfrastructureError
from pytest_hil.rig.pdu_agent import AUTH, PRIV, PduAgent

pytest.importorskip("pysnmp")

from tests.rig.pdu_agent import Apc, Apc2, Eaton, Outlets, Raritan, Words

SNMPD = shutil.which("snmpd", path=f"{os.environ['PATH']}:/usr/sbin")
AUTH_SECRET, PRIV_SECRET = Secret("env", "HIL_TEST_AUTH"), Secret("env", "HIL_TEST_PRIV")
BOB: dict[str, Any] = {
    "version": "3",
    "user": "bob",
    "auth_password": AUTH_SECRET,
    "priv_password": PRIV_SECRET,
}
MODELS = [("apc", Apc), ("apc-rpdu2", Apc2), ("raritan", Raritan), ("eaton", Eaton)]


@pytest.fixture(autouse=True)
def _passwords(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HIL_TEST_AUTH", AUTH)
    monkeypatch.setenv("HIL_TEST_PRIV", PRIV)


def power(port: int, model: str = "apc", **options: Any) -> SnmpPower:
    return SnmpPower(SnmpOptions(("127.0.0.1", port), model, **{"timeout": 5.0, **options}))


Running = Callable[..., PduAgent]


@pytest.fixture
def running() -> Iterator[Running]:
    with contextlib.ExitStack() as stack:
        yield lambda outlets, **options: stack.enter_context(PduAgent(outlets, **options))


def on(outlets: Outlets) -> list[tuple[int, int]]:
    return [outlet for outlet in outlets.states if outlets.now(outlet)]


@pytest.mark.parametrize(("model", "kind"), MODELS)
@pytest.mark.parametrize("version", ["1", "2c"])
def test_on_off_and_read(
    running: Running, model: str, kind: Callable[[], Outlets], version: str
) -> None:
    outlets = kind()
    one = power(running(outlets).port, model, outlet=8, version=version)
    switch = Switch(one, SwitchOptions(retries=0, off_seconds=0.0), name="dut")
    unit = 0 if model == "eaton" else 1
    assert switch.read() is False
    switch.on()
    assert on(outlets) == [(unit, 8)]
    assert switch.read() is True
    switch.off()
    assert on(outlets) == []
    switch.close()
    switch.close()


@pytest.mark.parametrize(("model", "kind"), [("raritan", Raritan), ("eaton", Eaton)])
def test_another_pdu_of_a_chain(running: Running, model: str, kind: Callable[[], Outlets]) -> None:
    outlets = kind()
    power(running(outlets).port, model, unit=2, outlet=2).on()
    assert on(outlets) == [(2, 2)]


@pytest.mark.parametrize(("model", "kind"), MODELS)
def test_it_waits_until_the_relay_has_moved(
    running: Running, model: str, kind: Callable[..., Outlets]
) -> None:
    outlets = kind(delay=0.3)
    one = power(running(outlets).port, model, settle=60)
    for act, state in ((one.on, True), (one.off, False)):
        began = time.monotonic()
        act()
        assert 0.25 < time.monotonic() - began < 30
        assert bool(on(outlets)) is state
        assert one.read() is state


def test_what_is_pending_has_not_happened(running: Running) -> None:
    outlets = Eaton(delay=60.0)
    one = power(running(outlets).port, "eaton", settle=0.0)
    one.on()
    assert one.read() is False


def test_a_stuck_relay(running: Running) -> None:
    outlets = Apc2(stuck=True)
    one = power(running(outlets).port, "apc-rpdu2", settle=0.3)
    switch = Switch(one, SwitchOptions(retries=0), name="dut")
    with pytest.raises(PowerError, match="dut was told on and says off"):
        switch.on()


def test_generic_with_words(running: Running) -> None:
    outlets = Words()
    column = "1.3.6.1.4.1.99999.1.{outlet}"
    one = power(
        running(outlets).port,
        "generic",
        outlet=2,
        oid=column,
        on_value="an",
        off_value="aus",
        read_oid=column,
        read_on="läuft",
    )
    one.on()
    assert on(outlets) == [(1, 2)]
    assert one.read() is True
    one.off()
    assert one.read() is False


def test_generic_that_cannot_say(running: Running) -> None:
    outlets = Eaton()
    table = "1.3.6.1.4.1.534.6.6.7.6.6.1"
    one = power(
        running(outlets).port,
        "generic",
        oid=f"{table}.4.{{unit}}.{{outlet}}",
        on_value=0,
        off_oid=f"{table}.3.{{unit}}.{{outlet}}",
    )
    one.on()
    assert on(outlets) == [(0, 1)]
    assert one.read() is None
    one.off()
    assert on(outlets) == []


def test_a_state_that_is_neither(running: Running) -> None:
    class Unknown(Apc):
        def get(self, oid: tuple[int, ...]) -> int:
            return 4

    outlets = Unknown()
    with pytest.raises(PowerError, match=r"says '4' of outlet 1: neither on \(1\) nor off \(2\)"):
        power(running(outlets).port).read()


def test_from_a_table(running: Running) -> None:
    outlets = Apc2()
    table = {"host": f"127.0.0.1:{running(outlets).port}", "model": "apc-rpdu2", "outlet": 2}
    section = Section("boards.toml", "[target.dut.power]", "snmp", table)
    open_switch(section, name="dut").on()
    assert on(outlets) == [(1, 2)]


# --- who may ---


def test_a_community_that_only_reads(running: Running) -> None:
    outlets = Apc()
    one = power(running(outlets).port, community=Community("public"))
    assert one.read() is False
    with pytest.raises(InfrastructureError, match=r"refused 1\.3\.6\.1\.4\.1\.318") as caught:
        one.on()
    assert not isinstance(caught.value, PowerError)
    assert "write" in caught.value.mend


def test_a_wrong_community_gets_no_answer(running: Running) -> None:
    one = power(running(Apc()).port, community=Community("gehe1m"), timeout=0.6)
    with pytest.raises(PowerError, match=r"did not answer within 0\.6 s") as caught:
        one.read()
    assert "wrong community" in caught.value.mend
    assert "gehe1m" not in "".join(traceback.format_exception(caught.value))


def test_a_user_without_a_password_that_only_reads(running: Running) -> None:
    one = power(running(Apc()).port, version="3", user="eve")
    assert one.read() is False
    with pytest.raises(InfrastructureError, match="refused") as caught:
        one.on()
    assert not isinstance(caught.value, PowerError)


def test_a_community_from_the_environment(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HIL_TEST_COMMUNITY", "private")
    outlets = Apc()
    power(running(outlets).port, community=Secret("env", "HIL_TEST_COMMUNITY")).on()
    assert on(outlets) == [(1, 1)]


def test_a_community_is_in_no_repr() -> None:
    options = SnmpOptions(("pdu", 161), "apc", community=Community("gehe1m"))
    assert "gehe1m" not in repr(options) + str(options)


@pytest.mark.parametrize(
    ("auth", "priv", "auth_name", "priv_name"),
    [
        ("USM_AUTH_HMAC96_SHA", "USM_PRIV_CFB128_AES", "sha", "aes"),
        ("USM_AUTH_HMAC96_MD5", "USM_PRIV_CBC56_DES", "md5", "des"),
        ("USM_AUTH_HMAC192_SHA256", "USM_PRIV_CFB256_AES", "sha256", "aes256"),
        ("USM_AUTH_HMAC384_SHA512", "USM_PRIV_CFB192_AES", "sha512", "aes192"),
    ],
)
def test_a_user(running: Running, auth: str, priv: str, auth_name: str, priv_name: str) -> None:
    pytest.importorskip("cryptography")
    outlets = Apc()
    port = running(outlets, auth=auth, priv=priv).port
    one = power(port, auth=auth_name, priv=priv_name, **BOB)
    one.on()
    assert on(outlets) == [(1, 1)]
    assert one.read() is True


@pytest.mark.parametrize(
    "wrong",
    [
        {"user": "mallory"},
        {"auth_password": Secret("env", "HIL_TEST_WRONG")},
        {"auth": "sha256"},
        {"priv_password": None},
    ],
)
def test_a_wrong_user(
    running: Running, wrong: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("cryptography")
    monkeypatch.setenv("HIL_TEST_WRONG", "quite-wrong-one")
    outlets = Apc()
    with pytest.raises(InfrastructureError) as caught:
        power(running(outlets).port, timeout=1.5, **{**BOB, **wrong}).on()
    assert not isinstance(caught.value, PowerError), caught.value
    text = "".join(traceback.format_exception(caught.value))
    assert "quite-wrong-one" not in text
    assert AUTH not in text
    assert on(outlets) == []


def test_a_wrong_privacy_password(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    """The agent cannot read such a message."""
    pytest.importorskip("cryptography")
    monkeypatch.setenv("HIL_TEST_PRIV", "quite-wrong-one")
    with pytest.raises(InfrastructureError) as caught:
        power(running(Apc()).port, timeout=0.9, **BOB).on()
    assert "quite-wrong-one" not in "".join(traceback.format_exception(caught.value))


# --- what goes wrong ---


def test_an_outlet_that_it_has_not(running: Running) -> None:
    port = running(Apc()).port
    for version in ("1", "2c"):
        one = power(port, outlet=5, version=version)
        for act in (one.read, one.on):
            with pytest.raises(InfrastructureError, match=r"318\.1\.1\.4\.4\.2\.1\.3\.5") as caught:
                act()
            assert not isinstance(caught.value, PowerError)
            assert caught.value.mend


def test_another_kind_of_pdu(running: Running) -> None:
    with pytest.raises(InfrastructureError, match=r"has no 1\.3\.6\.1\.4\.1\.13742") as caught:
        power(running(Apc()).port, "raritan").read()
    assert "model" in caught.value.mend


@pytest.mark.parametrize(
    ("failing", "lasting"),
    [
        ("GenError", False),
        ("ResourceUnavailableError", False),
        ("WrongTypeError", True),
        ("NotWritableError", True),
        ("NoAccessError", True),
    ],
)
def test_refusals(running: Running, failing: str, lasting: bool) -> None:
    outlets = Apc(failing=failing)
    with pytest.raises(InfrastructureError, match=r"refused 1\.3\.6\.1\.4\.1\.318") as caught:
        power(running(outlets).port).on()
    assert isinstance(caught.value, PowerError) is not lasting


class Odd:
    """A UDP socket that answers anything with the same, or with nothing."""

    def __init__(self, answer: Callable[[bytes], bytes] | None) -> None:
        self.heard = 0
        self._answer = answer
        self._socket = socket.socket(type=socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self._socket.settimeout(0.05)
        self.port = int(self._socket.getsockname()[1])
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while not self._over.is_set():
            with contextlib.suppress(TimeoutError):
                data, peer = self._socket.recvfrom(65536)
                self.heard += 1
                if self._answer is not None:
                    self._socket.sendto(self._answer(data), peer)

    def __enter__(self) -> Odd:
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        self._socket.close()


@pytest.mark.parametrize("version", ["2c", "3"])
def test_silence(version: str) -> None:
    user: dict[str, Any] = {"version": "3", "user": "eve"} if version == "3" else {}
    with Odd(None) as odd:
        began = time.monotonic()
        with pytest.raises(PowerError, match=r"did not answer within 0\.9 s"):
            power(odd.port, timeout=0.9, **user).read()
        assert 0.5 < time.monotonic() - began < 4
    assert odd.heard > 1, "a datagram may be lost"


def test_a_lost_datagram() -> None:
    """The first one gets lost."""
    outlets = Apc()
    with PduAgent(outlets) as inner, Lossy(inner.port) as lossy:
        power(lossy.port, timeout=3.0).on()
        assert on(outlets) == [(1, 1)]


class Lossy:
    """Hands datagrams on to an agent, but not the first."""

    def __init__(self, port: int) -> None:
        self._heard = 0
        self._back = socket.socket(type=socket.SOCK_DGRAM)
        self._back.connect(("127.0.0.1", port))
        self._back.settimeout(2)
        self._odd = Odd(self._through)
        self.port = self._odd.port

    def _through(self, data: bytes) -> bytes:
        self._heard += 1
        if self._heard == 1:
            return b""
        self._back.send(data)
        return self._back.recv(65536)

    def __enter__(self) -> Lossy:
        return self

    def __exit__(self, *_: object) -> None:
        self._odd.__exit__()
        self._back.close()


@pytest.mark.parametrize(
    "answer",
    [
        lambda _: b"hello",
        lambda _: b"",
        lambda data: data[:20],
        lambda data: data,
        lambda _: b"\x30\x84\xff\xff\xff\xff",
        lambda data: data.replace(b"private", b"pr1vate"),
    ],
)
def test_garbage_is_no_answer(answer: Callable[[bytes], bytes]) -> None:
    with Odd(answer) as odd, pytest.raises(PowerError, match=r"the PDU at 127\.0\.0\.1"):
        power(odd.port, timeout=0.6).read()


def test_nobody_listens() -> None:
    with socket.socket(type=socket.SOCK_DGRAM) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(PowerError, match=f"the PDU at 127.0.0.1:{port}"):
        power(port, timeout=0.6).on()


def test_no_such_host() -> None:
    one = SnmpPower(SnmpOptions(("no.such.host.invalid", 161), "apc"))
    with pytest.raises(PowerError, match=r"no\.such\.host\.invalid:161: there is no such host"):
        one.on()


def test_it_is_asked_from_within_an_event_loop(running: Running) -> None:
    import asyncio

    outlets = Apc()
    one = power(running(outlets).port)

    async def inside() -> None:
        one.on()

    asyncio.run(inside())
    assert on(outlets) == [(1, 1)]


def test_without_pysnmp(running: Running) -> None:
    """In a Python of its own, where an import of it fails."""
    import subprocess

    script = """
import sys
sys.modules["pysnmp"] = None
from pytest_hil.board.power.snmp import SnmpOptions, SnmpPower
one = SnmpPower(SnmpOptions(("127.0.0.1", 1), "apc"))
try:
    one.on()
except Exception as error:
    print(type(error).__name__, error)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.startswith("HostLacks pysnmp is not installed")
    assert "pip install 'pytest-hil[snmp]'" in done.stdout


# --- keys ---


@pytest.mark.parametrize(
    ("written", "found"),
    [
        ("pdu", ("pdu", 161)),
        ("pdu.lab:1161", ("pdu.lab", 1161)),
        ("192.168.1.5", ("192.168.1.5", 161)),
        ("::1", ("::1", 161)),
        ("[fe80::1]", ("fe80::1", 161)),
        ("[::1]:1161", ("::1", 1161)),
    ],
)
def test_addresses(written: str, found: tuple[str, int]) -> None:
    assert agent(written) == found


def test_communities() -> None:
    assert community({"env": "X"}) == Secret("env", "X")
    plain = community("public")
    assert plain.reveal() == "public"
    assert community(plain) is plain


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ({"host": "a b"}, "no address"),
        ({"model": "acme"}, "allowed"),
        ({"model": "generic"}, "oid: missing"),
        ({"model": "generic", "oid": "sysDescr.0"}, "no OID"),
        ({"model": "generic", "oid": "1.3.6.1.x"}, "no OID"),
        ({"model": "generic", "oid": "1.3.6.1", "on_value": 2**40}, "32 bits"),
        ({"model": "generic", "oid": "1.3.6.1", "on_value": 1.5}, "number or a string"),
        ({"model": "generic", "oid": "1.3.6.1", "on_value": 0}, "on and off are set alike"),
        (
            {"model": "generic", "oid": "1.3.6.1", "read_oid": "1.3.6.1", "read_on": 0},
            "same value",
        ),
        ({"oid": "1.3.6.1"}, "not for model 'apc'"),
        ({"unit": 1}, "has no units"),
        ({"version": 2}, "one of"),
        ({"version": "3"}, "user: missing"),
        ({"user": "bob"}, "knows no users"),
        ({"version": "3", "user": "b", "priv_password": {"env": "X"}}, "auth_password: missing"),
        ({"auth_password": "geheim"}, "do not belong in a file"),
        ({"community": 7}, "where the password is"),
        ({"outlet": 0}, "out of range"),
    ],
)
def test_wrong_keys(written: dict[str, object], message: str) -> None:
    table = {"host": "pdu", "model": "apc", **written}
    with pytest.raises(ConfigError, match=message) as caught:
        open_switch(Section("boards.toml", "[target.dut.power]", "snmp", table), name="dut")
    assert "geheim" not in str(caught.value)


def test_a_short_passphrase(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HIL_TEST_AUTH", "geheim7")
    with pytest.raises(ConfigError, match="fewer than 8 characters") as caught:
        power(1, **BOB).on()
    assert "geheim7" not in "".join(traceback.format_exception(caught.value))


# --- another implementation of SNMP ---

# net-snmp's "pass": -g OID prints OID, type and value; -s OID TYPE VALUE sets. An rPDU2.
PASS = """#!{python}
import sys
from pathlib import Path
state = Path({state!r})
kind, oid = sys.argv[1:3]
table = ".1.3.6.1.4.1.318.1.1.26.9.2."
if kind == "-s" and oid == table + "4.1.5.8":
    state.write_text("2" if sys.argv[4] == "1" else "1")
elif kind == "-s":
    print("not-writable")
elif kind == "-g" and oid == table + "3.1.5.8":
    print(oid, "integer", state.read_text(), sep="\\n")
"""


@pytest.fixture
def snmpd(tmp_path: Path) -> Iterator[int]:
    assert SNMPD is not None
    with socket.socket(type=socket.SOCK_DGRAM) as free:
        free.bind(("127.0.0.1", 0))
        port = int(free.getsockname()[1])
    (tmp_path / "state").write_text("1")
    script = tmp_path / "pass"
    script.write_text(PASS.format(python=sys.executable, state=str(tmp_path / "state")))
    script.chmod(0o755)
    config = tmp_path / "snmpd.conf"
    config.write_text(
        f"rwcommunity private 127.0.0.1\nrocommunity public 127.0.0.1\n"
        f'createUser bob SHA-256 "{AUTH}" AES "{PRIV}"\nrwuser bob authpriv\n'
        f"pass .1.3.6.1.4.1.318 {script}\n[snmp] persistentDir {tmp_path}\n"
    )
    argv = [SNMPD, "-f", "-Lf", str(tmp_path / "log"), "-C", "-c", str(config), "-I-system_mib"]
    daemon = process.start([*argv, f"udp:127.0.0.1:{port}"])
    yield port
    daemon.end()


@pytest.mark.slow
@pytest.mark.skipif(SNMPD is None, reason="snmpd is not on PATH: apt-get install snmpd")
@pytest.mark.parametrize("how", ["1", "2c", "3"])
def test_net_snmp(snmpd: int, tmp_path: Path, how: str) -> None:
    user: dict[str, Any] = {**BOB, "auth": "sha256"} if how == "3" else {"version": how}
    one = power(snmpd, "apc-rpdu2", outlet=8, timeout=10.0, **user)
    switch = Switch(one, SwitchOptions(retries=2, off_seconds=0.0), name="dut")
    assert switch.read() is False
    switch.on()
    assert (tmp_path / "state").read_text() == "2"
    assert switch.read() is True
    switch.off()
    assert switch.read() is False
    with pytest.raises(InfrastructureError) as caught:
        power(snmpd, "apc-rpdu2", outlet=9, **user).on()
    assert not isinstance(caught.value, PowerError)
    if how == "3":
        with pytest.raises(InfrastructureError, match=r"[Uu]nknown") as caught:
            power(snmpd, "apc-rpdu2", **{**user, "user": "mallory"}).read()
        with pytest.raises(InfrastructureError) as caught:
            power(snmpd, "apc-rpdu2", **{**user, "auth": "sha"}).read()
        assert not isinstance(caught.value, PowerError)
