"""Shellies of both kinds: web servers that behave as they do."""

from __future__ import annotations

import json
import traceback
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from pytest_hil.board.power.shelly import Shelly, ShellyOptions
from pytest_hil.board.power.switch import PowerError, Switch, SwitchOptions, open_switch
from pytest_hil.config.driver import Secret, Section
from pytest_hil.errors import InfrastructureError
from tests.rig.web_device import Answer, Reply, Request, WebDevice

PASSWORD = "geh:eim"
SECRET = Secret("env", "HIL_TEST_PASSWORD")


class First:
    """A Shelly 2.5: HTTP Basic, /relay/N."""

    def __init__(self, password: str = "", relays: int = 2) -> None:
        self.relays = [False] * relays
        self.password = password
        # Overpower: it switches itself off at once.
        self.overloaded = False

    def __call__(self, request: Request) -> Answer:
        if request.path == "/shelly":
            said = {"type": "SHSW-25", "mac": "CC50E3559F55", "auth": bool(self.password)}
            return Reply(json.dumps({**said, "fw": "20230913-112234/v1.14.0", "num_outputs": 2}))
        if self.password and not request.knows("admin", self.password):
            asked = {"WWW-Authenticate": 'Basic realm="shellyswitch25-559F55"'}
            return Reply("401 Unauthorized", 401, asked)
        place, _, number = request.path.rpartition("/")
        if place != "/relay" or not number.isdigit() or int(number) >= len(self.relays):
            return Reply("Not Found", 404)
        turn = request.query.get("turn")
        if turn in ("on", "off"):
            self.relays[int(number)] = turn == "on" and not self.overloaded
        state = {"ison": self.relays[int(number)], "has_timer": False, "source": "http"}
        return Reply(json.dumps({**state, "overpower": self.overloaded}))


class Second:
    """A Shelly Plus: HTTP Digest with SHA-256 and a new nonce for each request, /rpc."""

    def __init__(self, password: str = "", relays: int = 1, gen: int = 2) -> None:
        self.relays = [False] * relays
        self.password = password
        self.gen = gen
        self._nonces: set[str] = set()

    def __call__(self, request: Request) -> Answer:
        realm = "shellyplus1-a8032ab12345"
        if request.path == "/shelly":
            said = {"name": None, "id": realm, "mac": "A8032AB12345", "model": "SNSW-001X16EU"}
            return Reply(json.dumps({**said, "gen": self.gen, "auth_en": bool(self.password)}))
        if self.password:
            used = next((n for n in self._nonces if self._proved(request, realm, n)), None)
            if used is None:
                nonce = f"{len(self._nonces) + 1655194740}"
                self._nonces.add(nonce)
                asked = f'Digest qop="auth", realm="{realm}", nonce="{nonce}", algorithm=SHA-256'
                return Reply("", 401, {"WWW-Authenticate": asked})
            self._nonces.remove(used)
        method = request.path.removeprefix("/rpc/")
        if method not in ("Switch.Set", "Switch.GetStatus"):
            return Reply(json.dumps({"code": 404, "message": f"No handler for {method}"}), 404)
        number = int(request.query["id"])
        if number >= len(self.relays):
            message = f"Argument 'id', value {number} not found!"
            return Reply(json.dumps({"code": -105, "message": message}), 500)
        before = self.relays[number]
        if method == "Switch.Set":
            self.relays[number] = {"true": True, "false": False}[request.query["on"]]
            return Reply(json.dumps({"was_on": before}))
        return Reply(json.dumps({"id": number, "source": "HTTP_in", "output": before, "apower": 0}))

    def _proved(self, request: Request, realm: str, nonce: str) -> bool:
        return request.proves("admin", self.password, realm=realm, nonce=nonce, hashed="sha256")


Made = Callable[..., tuple[Shelly, WebDevice]]


@pytest.fixture(autouse=True)
def _password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HIL_TEST_PASSWORD", PASSWORD)


@pytest.fixture
def shelly() -> Iterator[Made]:
    made: list[WebDevice] = []

    def make(
        answer: Callable[[Request], Answer] | Answer, **options: Any
    ) -> tuple[Shelly, WebDevice]:
        made.append(WebDevice(answer if callable(answer) else lambda _: answer))
        return Shelly(ShellyOptions(made[-1].url, **options)), made[-1]

    yield make
    for one in made:
        one.close()


@pytest.mark.parametrize("password", ["", PASSWORD])
@pytest.mark.parametrize("kind", [First, Second, lambda p: Second(p, gen=4)])
def test_on_off_and_read(shelly: Made, kind: Callable[[str], Any], password: str) -> None:
    firmware = kind(password)
    one, device = shelly(firmware, password=SECRET if password else None)
    switch = Switch(one, SwitchOptions(retries=0, off_seconds=0.0), name="dut")
    assert switch.read() is False
    switch.on()
    assert firmware.relays[0]
    assert switch.read() is True
    switch.off()
    assert not any(firmware.relays)
    switch.cycle()
    assert firmware.relays[0]
    switch.close()
    switch.close()
    assert [r.path for r in device.asked].count("/shelly") == 1
    assert "authorization" not in device.asked[0].headers


@pytest.mark.parametrize("kind", [lambda: First(relays=4), lambda: Second(relays=4)])
def test_another_channel(kind: Callable[[], Any]) -> None:
    firmware = kind()
    with WebDevice(firmware) as device:
        table = {"url": f"127.0.0.1:{device.port}", "channel": 2}
        section = Section("boards.toml", "[target.dut.power]", "shelly", table)
        open_switch(section, name="dut").on()
    assert firmware.relays == [False, False, True, False]


@pytest.mark.parametrize("kind", [First, Second])
def test_a_wrong_password(shelly: Made, kind: Callable[[str], Any]) -> None:
    one, device = shelly(kind("another"), password=SECRET)
    with pytest.raises(InfrastructureError, match="refused the user 'admin'") as caught:
        one.on()
    assert not isinstance(caught.value, PowerError)
    assert len(device.asked) == 3
    assert PASSWORD not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("kind", [First, Second])
def test_no_password(shelly: Made, kind: Callable[[str], Any]) -> None:
    one, _ = shelly(kind("another"))
    for act in (one.on, one.read):
        with pytest.raises(InfrastructureError, match="wants a user and a password"):
            act()


def test_who_asks_for_the_password_itself_does_not_get_it(shelly: Made) -> None:
    """A Shelly of the second generation never wants Basic."""

    def answer(request: Request) -> Answer:
        if request.path == "/shelly":
            return Reply('{"gen":2}')
        return Reply("", 401, {"WWW-Authenticate": 'Basic realm="give"'})

    one, device = shelly(answer, password=SECRET)
    with pytest.raises(InfrastructureError, match="wants authentication by basic"):
        one.on()
    assert not any("authorization" in request.headers for request in device.asked)


@pytest.mark.parametrize(
    ("kind", "message"),
    [(First, "/relay/7 answered 404"), (Second, r"channel 7: .*value 7 not found! \(-105\)")],
)
def test_a_channel_that_it_has_not(shelly: Made, kind: Callable[[], Any], message: str) -> None:
    one, _ = shelly(kind(), channel=7)
    for act in (one.on, one.off, one.read):
        with pytest.raises(InfrastructureError, match=message) as caught:
            act()
        assert not isinstance(caught.value, PowerError)


def test_it_switches_itself_off(shelly: Made) -> None:
    firmware = First()
    firmware.overloaded = True
    with pytest.raises(PowerError, match="was told on and says the opposite") as caught:
        shelly(firmware)[0].on()
    assert "overpower" in caught.value.mend


@pytest.mark.parametrize(
    "answer",
    [
        Reply('{"hello":"world"}'),
        Reply('{"gen":"2"}'),
        Reply('{"gen":true}'),
        Reply('{"gen":0}'),
        Reply("<html></html>"),
        Reply("nothing here", 404),
        b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n{",
    ],
)
def test_no_shelly(shelly: Made, answer: Answer) -> None:
    one, device = shelly(answer)
    with pytest.raises(InfrastructureError, match="/shelly") as caught:
        one.on()
    assert caught.value.mend or "middle" in caught.value.message
    assert [request.path for request in device.asked] == ["/shelly"]


@pytest.mark.parametrize("begin", ['{"type":"SHPLG-S"}', '{"gen":3}'])
@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (Reply("{}"), "answered without"),
        (Reply('{"ison":1,"output":"true","was_on":null}'), "answered without"),
        (Reply('{"ison":tr'), "did not answer with a JSON object"),
        (Reply("busy", 503), "503"),
        (Reply('{"code":"x"}', 500), "500"),
        (Reply('{"code":-1,"message":"overheated \\u001b[2J"}', 500), "overheated|500"),
        (b'HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{"ison"', "in the middle"),
        (b"", "without an answer"),
    ],
)
def test_wrong_answers(shelly: Made, begin: str, answer: Answer, message: str) -> None:
    one, _ = shelly(lambda request: Reply(begin) if request.path == "/shelly" else answer)
    for act in (one.on, one.off, one.read):
        with pytest.raises(PowerError, match=message) as caught:
            act()
        assert "\x1b" not in str(caught.value)


def test_silence(shelly: Made) -> None:
    one, _ = shelly(None, timeout=0.2)
    with pytest.raises(PowerError, match=r"did not answer within 0\.2 s"):
        one.read()


def test_a_failed_discovery_is_tried_again(shelly: Made) -> None:
    firmware = Second()
    said: list[Answer] = [Reply("starting", 503)]
    one, _ = shelly(lambda request: said.pop() if said else firmware(request))
    with pytest.raises(PowerError, match="503"):
        one.on()
    one.on()
    assert firmware.relays == [True]
