"""Tasmota: a web server that behaves as the firmware's /cm."""

from __future__ import annotations

import json
import traceback
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from pytest_hil.board.power.switch import PowerError, Switch, SwitchOptions, open_switch
from pytest_hil.board.power.tasmota import Tasmota, TasmotaOptions
from pytest_hil.config.driver import Secret, Section
from pytest_hil.errors import ConfigError, InfrastructureError
from tests.rig.web_device import Answer, Reply, Request, WebDevice

PASSWORD = "j&k=r +1"
SECRET = Secret("env", "HIL_TEST_PASSWORD")
NEEDED = '{"WARNING":"Need user=<username>&password=<password>"}'


class Firmware:
    """Commands of the web interface, for so many relays. Version 14, or older ones by options."""

    def __init__(self, relays: int = 1, password: str = "", *, old: bool = False) -> None:
        self.relays = dict.fromkeys(range(1, relays + 1), False)
        self.password = password
        self.old = old
        # SetOption26: POWER1 also where there is only one.
        self.indexed = relays > 1
        # SetOption128 is off: who does not come from its pages gets nothing.
        self.closed = False
        self.stuck = False

    def __call__(self, request: Request) -> Answer:
        if request.path != "/cm":
            return Reply("File Not Found", 404)
        if self.closed and "127.0.0.1" not in request.headers.get("referer", ""):
            return b""
        user, password = request.query.get("user"), request.query.get("password")
        if self.password and (user, password) != ("admin", self.password):
            return Reply(NEEDED, 200 if self.old else 401)
        return Reply(json.dumps(self.do(request.query.get("cmnd", ""))))

    def do(self, command: str) -> dict[str, str]:
        name, _, argument = command.partition(" ")
        if not name.upper().startswith("POWER"):
            return {"Command": "Unknown"}
        number = int(name[5:] or 1)
        if number not in self.relays:
            # CmndPower answers nothing then.
            return {"WARNING": "Enable weblog 2 if response expected"} if self.old else {}
        if argument and not self.stuck:
            self.relays[number] = {"ON": True, "OFF": False}[argument.upper()]
        index = str(number) if self.indexed else ""
        return {f"POWER{index}": "ON" if self.relays[number] else "OFF"}


@pytest.fixture(autouse=True)
def _password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HIL_TEST_PASSWORD", PASSWORD)


Plug = Callable[..., Tasmota]


@pytest.fixture
def plug() -> Iterator[Plug]:
    made: list[WebDevice] = []

    def make(answer: Callable[[Request], Answer] | Answer, **options: Any) -> Tasmota:
        made.append(WebDevice(answer if callable(answer) else lambda _: answer))
        return Tasmota(TasmotaOptions(made[-1].url, **options))

    yield make
    for one in made:
        one.close()


@pytest.mark.parametrize("relays", [1, 4])
def test_on_off_and_read(plug: Plug, relays: int) -> None:
    firmware = Firmware(relays)
    switch = Switch(plug(firmware, relay=relays), SwitchOptions(retries=0), name="dut")
    assert switch.read() is False
    switch.on()
    assert [number for number, on in firmware.relays.items() if on] == [relays]
    assert switch.read() is True
    switch.off()
    assert not any(firmware.relays.values())
    switch.close()
    switch.close()


def test_one_relay_that_is_called_power1(plug: Plug) -> None:
    firmware = Firmware()
    firmware.indexed = True
    one = plug(firmware)
    one.on()
    assert one.read() is True


def test_from_a_table_without_a_scheme() -> None:
    firmware = Firmware(2)
    with WebDevice(firmware) as device:
        table = {"url": f"127.0.0.1:{device.port}", "relay": 2}
        section = Section("boards.toml", "[target.dut.power]", "tasmota", table)
        open_switch(section, name="dut").on()
    assert firmware.relays == {1: False, 2: True}


def test_its_web_commands_are_only_for_its_own_pages(plug: Plug) -> None:
    firmware = Firmware()
    firmware.closed = True
    plug(firmware).on()
    assert firmware.relays[1]


@pytest.mark.parametrize("old", [False, True])
def test_password(plug: Plug, old: bool) -> None:
    firmware = Firmware(password=PASSWORD, old=old)
    plug(firmware, password=SECRET).on()
    assert firmware.relays[1]


@pytest.mark.parametrize("old", [False, True])
def test_no_password(plug: Plug, old: bool) -> None:
    with pytest.raises(InfrastructureError, match="wants a user and a password"):
        plug(Firmware(password=PASSWORD, old=old)).on()


@pytest.mark.parametrize("old", [False, True])
def test_a_wrong_password(plug: Plug, old: bool) -> None:
    firmware = Firmware(password="another", old=old)
    with pytest.raises(InfrastructureError, match="refused the user 'admin'") as caught:
        plug(firmware, password=SECRET).on()
    assert not isinstance(caught.value, PowerError), "it is not worth a repetition"
    text = "".join(traceback.format_exception(caught.value))
    assert PASSWORD not in text
    assert "j%26k" not in text


@pytest.mark.parametrize("old", [False, True])
def test_a_relay_that_it_has_not(plug: Plug, old: bool) -> None:
    with pytest.raises(InfrastructureError, match="says nothing of relay 3") as caught:
        plug(Firmware(2, old=old), relay=3).on()
    assert not isinstance(caught.value, PowerError)


def test_a_stuck_relay(plug: Plug) -> None:
    firmware = Firmware()
    firmware.stuck = True
    with pytest.raises(PowerError, match="was told On and says the opposite"):
        plug(firmware).on()


def test_another_relays_state_is_not_this_ones(plug: Plug) -> None:
    with pytest.raises(InfrastructureError, match="says nothing of relay 2"):
        plug(Reply('{"POWER":"ON","POWER1":"ON"}'), relay=2).read()


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (Reply('{"Command":"Unknown"}'), "does not know the command Power1"),
        (Reply('{"POWER":7}'), "says nothing of relay 1"),
        (Reply('{"POWER":"MAYBE"}'), "says nothing of relay 1"),
        (Reply("<html>Welcome</html>"), "did not answer with a JSON object: <html>Welcome"),
        (Reply('["ON"]'), "did not answer with a JSON object"),
        (Reply('{"POWER":"O'), "did not answer with a JSON object"),
        (Reply(b"\xff\xfe\x00"), "did not answer with a JSON object"),
        (Reply("[" * 100_000), "did not answer with a JSON object"),
        (Reply(""), "did not answer with a JSON object"),
        (Reply("File Not Found", 404), "404 Not Found"),
        (b'HTTP/1.1 200 OK\r\nContent-Length: 14\r\n\r\n{"POW', "in the middle of its answer"),
        (b"", "without an answer"),
    ],
)
def test_wrong_answers(plug: Plug, answer: Answer, message: str) -> None:
    one = plug(answer)
    for act in (one.read, one.on, one.off):
        with pytest.raises(InfrastructureError, match=message):
            act()


def test_silence(plug: Plug) -> None:
    with pytest.raises(PowerError, match=r"/cm did not answer within 0\.2 s"):
        plug(None, timeout=0.2, password=SECRET).read()


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("a b", "no address"),
        ("http://plug/?x=1", "query"),
        ("http://admin:geheim@plug", "password in it"),
        ("https://", "no http"),
    ],
)
def test_wrong_addresses(url: str, message: str) -> None:
    section = Section("boards.toml", "[target.dut.power]", "tasmota", {"url": url})
    with pytest.raises(ConfigError, match=message) as caught:
        open_switch(section, name="dut")
    assert "geheim" not in str(caught.value)
