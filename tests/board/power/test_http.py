"""Power by HTTP: servers on loopback, right ones and wrong ones."""

from __future__ import annotations

import socket
import subprocess
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pytest_hil.board.power import http_auth
from pytest_hil.board.power.http import HttpOptions, HttpPower
from pytest_hil.board.power.switch import PowerError, Switch, SwitchOptions, open_switch
from pytest_hil.config.driver import Secret, Section
from pytest_hil.errors import ConfigError, InfrastructureError
from tests.rig.web_device import Answer, Reply, Request, WebDevice

PASSWORD = "s3cret/&+ \"pass'wörd"
SECRET = Secret("env", "HIL_TEST_PASSWORD")

Serve = Callable[..., WebDevice]


@pytest.fixture(autouse=True)
def _password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HIL_TEST_PASSWORD", PASSWORD)


@pytest.fixture
def serve() -> Iterator[Serve]:
    made: list[WebDevice] = []

    def make(answer: Callable[[Request], Answer] | Answer, **options: Any) -> WebDevice:
        made.append(WebDevice(answer if callable(answer) else lambda _: answer, **options))
        return made[-1]

    yield make
    for one in made:
        one.close()


def power(device: WebDevice, **options: Any) -> HttpPower:
    defaults: dict[str, Any] = {"on_url": f"{device.url}/on", "off_url": f"{device.url}/off"}
    return HttpPower(HttpOptions(**{**defaults, "timeout": 5.0, **options}))


def reading(device: WebDevice, **options: Any) -> HttpPower:
    return power(device, read_url=f"{device.url}/state", read_on="ON", **options)


class Outlet:
    """Three paths."""

    def __init__(self) -> None:
        self.state = False

    def __call__(self, request: Request) -> Answer:
        if request.path in ("/on", "/off"):
            self.state = request.path == "/on"
            return Reply(status=204)
        return Reply(f"<p>The outlet is {'ON' if self.state else 'OFF'}</p>")


def test_on_off_and_read(serve: Serve) -> None:
    outlet = Outlet()
    device = serve(outlet)
    one = reading(device, read_off="OFF")
    switch = Switch(one, SwitchOptions(retries=0, off_seconds=0.0), name="dut")
    switch.on()
    assert outlet.state
    assert switch.read() is True
    switch.off()
    assert not outlet.state
    assert switch.read() is False
    switch.close()
    switch.close()
    assert {request.method for request in device.asked} == {"GET"}


def test_from_a_table(serve: Serve) -> None:
    outlet = Outlet()
    device = serve(outlet)
    table = {
        "on_url": f"{device.url}/on",
        "off_url": f"{device.url}/off",
        "read_url": f"{device.url}/state",
        "read_on": "is ON",
        "password": {"env": "HIL_TEST_PASSWORD"},
    }
    switch = open_switch(Section("boards.toml", "[target.dut.power]", "http", table), name="dut")
    switch.on()
    assert outlet.state


def test_without_read_url_it_cannot_say(serve: Serve) -> None:
    assert power(serve(Reply("ON"))).read() is None


def test_method_body_and_headers(serve: Serve) -> None:
    device = serve(Reply())
    one = power(
        device,
        method="PUT",
        body="both",
        off_body='{"on": false}',
        user="bob",
        password=SECRET,
        headers={"Content-Type": "application/json", "X-Who": "{user}"},
    )
    one.on()
    one.off()
    on, off = device.asked
    assert (on.method, on.body) == ("PUT", b"both")
    assert (off.method, off.body) == ("PUT", b'{"on": false}')
    assert off.headers["content-type"] == "application/json"
    assert off.headers["x-who"] == "bob"


def test_a_post_without_a_body_says_so(serve: Serve) -> None:
    device = serve(Reply())
    power(device, method="POST").on()
    assert device.asked[0].headers["content-length"] == "0"


def test_user_and_password_in_a_query(serve: Serve) -> None:
    device = serve(Reply())
    on_url = f"{device.url}/on?u={{user}}&p={{password}}&state=1 2"
    power(device, on_url=on_url, user="b&b", password=SECRET).on()
    assert device.asked[0].query == {"u": "b&b", "p": PASSWORD, "state": "1 2"}


@pytest.mark.parametrize(
    ("found", "state"), [("ON OFF", None), ("nothing", None), ("OFF", False), ("ON", True)]
)
def test_an_answer_must_be_one_of_both(serve: Serve, found: str, state: bool | None) -> None:
    one = reading(serve(Reply(found)), read_off="OFF")
    if state is not None:
        assert one.read() is state
        return
    with pytest.raises(PowerError, match="read_on") as caught:
        one.read()
    assert found in caught.value.message


def basic_only(request: Request) -> Answer:
    if request.knows("bob", PASSWORD):
        return Reply("ON")
    return Reply("no", 401, {"WWW-Authenticate": 'Basic realm="PDU, digest of outlets"'})


def digest_only(algorithm: str, hashed: str) -> Callable[[Request], Answer]:
    def answer(request: Request) -> Answer:
        if request.proves("bob", PASSWORD, realm='a "PDU"', nonce="n0", hashed=hashed):
            return Reply("ON")
        asked = f'Digest realm="a \\"PDU\\"", qop="auth,auth-int", nonce="n0"{algorithm}'
        return Reply("no", 401, {"WWW-Authenticate": asked})

    return answer


DIGEST = digest_only("", "md5")
SCHEMES = [
    basic_only,
    DIGEST,
    digest_only(", algorithm=MD5", "md5"),
    digest_only(", algorithm=SHA-256", "sha256"),
    digest_only(", algorithm=SHA-512-256", "sha512_256"),
]


@pytest.mark.parametrize("answer", SCHEMES)
def test_authentication(serve: Serve, answer: Callable[[Request], Answer]) -> None:
    device = serve(answer)
    one = reading(device, user="bob", password=SECRET)
    assert one.read() is True
    assert "authorization" not in device.asked[0].headers, "nobody had asked"
    one.on()


@pytest.mark.parametrize("answer", SCHEMES)
def test_a_wrong_password(
    serve: Serve, answer: Callable[[Request], Answer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HIL_TEST_PASSWORD", "wrong-one")
    device = serve(answer)
    with pytest.raises(InfrastructureError, match="refused the user 'bob'") as caught:
        reading(device, user="bob", password=SECRET).read()
    assert not isinstance(caught.value, PowerError), "a repetition could lock the user out"
    assert len(device.asked) == 2
    assert "wrong-one" not in "".join(traceback.format_exception(caught.value))


def test_no_password_where_one_is_wanted(serve: Serve) -> None:
    with pytest.raises(InfrastructureError, match="wants a user and a password") as caught:
        power(serve(basic_only)).on()
    assert "password =" in caught.value.mend


def test_basic_at_once(serve: Serve) -> None:
    device = serve(lambda r: Reply("ON") if r.knows("bob", PASSWORD) else Reply("?", 404))
    one = reading(device, user="bob", password=SECRET, auth="basic")
    assert one.read() is True
    assert len(device.asked) == 1


def test_a_nonce_that_is_too_old(serve: Serve) -> None:
    """The second nonce is the good one."""
    count = iter(range(10))

    def answer(request: Request) -> Answer:
        if request.proves("bob", PASSWORD, realm="r", nonce="n1", hashed="md5"):
            return Reply("ON")
        number = next(count)
        stale = ", stale=true" if number else ""
        asked = f'Digest realm="r", qop="auth", nonce="n{number}"{stale}'
        return Reply("no", 401, {"WWW-Authenticate": asked})

    assert reading(serve(answer), user="bob", password=SECRET).read() is True


@pytest.mark.parametrize(
    ("algorithm", "response"),
    [
        ("MD5", "8ca523f5e9506fed4657c9700eebdbec"),
        ("SHA-256", "753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1"),
    ],
)
def test_digest_of_rfc_7616(algorithm: str, response: str) -> None:
    """Its section 3.9.1."""
    asked = (
        'Digest realm="http-auth@example.org", qop="auth, auth-int", '
        f'algorithm={algorithm}, nonce="7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v", '
        'opaque="FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS"'
    )
    challenge = http_auth.best([asked])
    assert challenge is not None
    answer = challenge.answer(
        user="Mufasa",
        password="Circle of Life",
        method="GET",
        target="/dir/index.html",
        cnonce="f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ",
    )
    assert f'response="{response}"' in answer
    assert f"algorithm={algorithm}" in answer
    assert 'opaque="FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS"' in answer


@pytest.mark.parametrize(
    ("headers", "best"),
    [
        (['Basic realm="x"', 'Digest realm="x", nonce="n"'], "digest MD5"),
        (['Digest nonce="n", algorithm=MD5, Digest nonce="n", algorithm=SHA-256'], "SHA-256"),
        (['basic realm="x"'], "basic"),
        (['Digest nonce="n", qop="auth-int"', 'Basic realm="x"'], "basic"),
        (['Digest nonce="n", algorithm=SHA3', "Negotiate"], None),
        (["Digest", "", ",,", "Digest nonce"], None),
    ],
)
def test_the_strongest_offer(headers: list[str], best: str | None) -> None:
    found = http_auth.best(headers)
    if best is None:
        assert found is None
        return
    assert found is not None
    assert best.split()[0].lower() in (found.scheme, found.parameters.get("algorithm", "").lower())


def test_digest_alone_gives_no_password_away() -> None:
    assert http_auth.best(['Basic realm="x"'], ("digest",)) is None


@pytest.mark.parametrize(
    ("answer", "message", "lasting"),
    [
        (Reply("gone", 404), "404 Not Found: gone", True),
        (Reply("not you", 403), "403 Forbidden: not you", True),
        (Reply("later", 503), "503 Service Unavailable: later", False),
        (Reply("slowly", 429), "429 Too Many Requests: slowly", False),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "does not speak HTTP: BadStatusLine", False),
        (b"", "ended the connection without an answer", False),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nON", "in the middle of its answer", False),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nON", "IncompleteRead", False),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nON", "IncompleteRead", False),
        (b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 200 + b"\r\n", "does not speak HTTP", False),
        (Reply(b"x" * 300_000), "more than 256 KiB", False),
        (b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 300_000, "more than 256 KiB", False),
    ],
)
def test_wrong_answers(serve: Serve, answer: Answer, message: str, lasting: bool) -> None:
    device = serve(answer)
    for act in (reading(device).read, power(device).on):
        with pytest.raises(InfrastructureError, match=message) as caught:
            act()
        assert isinstance(caught.value, PowerError) is not lasting
        assert f"127.0.0.1:{device.port}/" in caught.value.message


def test_what_it_says_steers_no_terminal(serve: Serve) -> None:
    with pytest.raises(PowerError) as caught:
        power(serve(Reply("\x1b[2J\nboo" + "y" * 1000, 500))).on()
    assert "\x1b" not in caught.value.message
    assert len(caught.value.message) < 400


def test_silence(serve: Serve) -> None:
    began = time.monotonic()
    with pytest.raises(PowerError, match=r"did not answer within 0\.3 s") as caught:
        power(serve(None), timeout=0.3).on()
    assert 0.25 < time.monotonic() - began < 3
    assert "switched on" in caught.value.mend


@pytest.mark.parametrize("begin", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n"])
def test_an_answer_in_drops_ends_in_time(serve: Serve, begin: bytes) -> None:
    """Each drop comes in time; the whole does not."""
    device = serve(lambda _: [begin, *[b"H"] * 100])
    began = time.monotonic()
    with pytest.raises(PowerError, match="did not answer within"):
        power(device, timeout=0.35).on()
    assert time.monotonic() - began < 3


def test_nobody_listens(serve: Serve) -> None:
    device = serve(Reply())
    one = power(device)
    device.close()
    with pytest.raises(PowerError, match=rf"127.0.0.1:{device.port}/on refused the connection"):
        one.on()


def test_no_such_host() -> None:
    one = HttpPower(HttpOptions("http://no.such.host.invalid/on", "http://127.0.0.1/off"))
    with pytest.raises(PowerError, match=r"http://no.such.host.invalid/on: there is no such host"):
        one.on()


def test_the_password_is_in_no_error(serve: Serve) -> None:
    """Not even when the device gives back all that it was asked."""

    def echo(request: Request) -> Answer:
        said = f"{request.target} {request.headers} {PASSWORD} {request.body!r}"
        return Reply(said, 500)

    device = serve(echo)
    options = HttpOptions(
        f"{device.url}/on?password={{password}}",
        f"{device.url}/off",
        user="bob",
        password=SECRET,
        auth="basic",
    )
    with pytest.raises(PowerError) as caught:
        HttpPower(options).on()
    text = "".join(traceback.format_exception(caught.value)) + repr(options)
    assert "***" in caught.value.message
    for form in (PASSWORD, "s3cret", device.asked[0].headers["authorization"].split()[1]):
        assert form not in text
    assert "?" not in caught.value.message.partition(" answered")[0]


def test_redirects_on_the_same_device(serve: Serve) -> None:
    outlet = Outlet()

    def answer(request: Request) -> Answer:
        if request.path == "/moved":
            return Reply(status=307, headers={"Location": "/on"})
        if request.path == "/form":
            return Reply(status=302, headers={"Location": "done.html"})
        return outlet(request)

    device = serve(answer)
    power(device, on_url=f"{device.url}/moved", method="POST", body="b").on()
    assert outlet.state
    assert [(r.method, r.path, r.body) for r in device.asked] == [
        ("POST", "/moved", b"b"),
        ("POST", "/on", b"b"),
    ]
    del device.asked[:]
    power(device, on_url=f"{device.url}/form", method="POST", body="b").on()
    assert [(r.method, r.path, r.body) for r in device.asked] == [
        ("POST", "/form", b"b"),
        ("GET", "/done.html", b""),
    ]


def test_no_redirect_to_another_device(serve: Serve) -> None:
    other = serve(Reply("ON"))
    device = serve(Reply(status=302, headers={"Location": f"{other.url}/on?x=1"}))
    with pytest.raises(InfrastructureError, match="another place") as caught:
        power(device, user="bob", password=SECRET).on()
    assert f"{other.port}/on," in caught.value.message
    assert other.asked == []


@pytest.mark.parametrize("location", ["http://[", "http://127.0.0.1:99999/", "file:///etc/passwd"])
def test_redirects_to_nowhere(serve: Serve, location: str) -> None:
    device = serve(Reply(status=302, headers={"Location": location}))
    with pytest.raises(InfrastructureError):
        power(device).on()


def test_redirects_without_end(serve: Serve) -> None:
    device = serve(Reply(status=302, headers={"Location": "/on"}))
    with pytest.raises(PowerError, match="redirects without end"):
        power(device).on()
    assert len(device.asked) < 10


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One that nobody has signed."""
    found = tmp_path_factory.mktemp("tls") / "both.pem"
    argv = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    argv += ["-nodes", "-subj", "/CN=pdu", "-keyout", str(found), "-out", f"{found}.crt"]
    subprocess.run(argv, check=True, capture_output=True, timeout=60)
    found.write_text(found.read_text() + Path(f"{found}.crt").read_text())
    return found


def test_a_certificate_that_nobody_signed(serve: Serve, certificate: Path) -> None:
    outlet = Outlet()
    device = serve(outlet, certificate=certificate)
    with pytest.raises(InfrastructureError, match="certificate cannot be trusted") as caught:
        power(device).on()
    assert "verify_tls" in caught.value.mend
    assert not outlet.state
    one = reading(device, verify_tls=False)
    one.on()
    assert outlet.state
    assert one.read() is True


def test_silence_under_tls(serve: Serve, certificate: Path) -> None:
    with pytest.raises(PowerError, match="did not answer within"):
        power(serve(None, certificate=certificate), verify_tls=False, timeout=0.3).on()


def test_tls_to_a_server_without(serve: Serve) -> None:
    device = serve(Reply())
    with pytest.raises(PowerError, match=f"https://127.0.0.1:{device.port}/on"):
        power(device, on_url=device.url.replace("http:", "https:") + "/on").on()


def test_a_connection_that_is_reset() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        one = HttpPower(HttpOptions(f"http://127.0.0.1:{port}/", "http://127.0.0.1/", timeout=2.0))
        import struct
        import threading

        def reset() -> None:
            connection, _ = server.accept()
            linger = struct.pack("ii", 1, 0)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            connection.close()

        thread = threading.Thread(target=reset)
        thread.start()
        with pytest.raises(PowerError, match="ended the connection without an answer"):
            one.on()
        thread.join()


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ({"on_url": "ftp://x/"}, "no http"),
        ({"on_url": "http://bob:geheim@pdu/"}, "user or a password in it"),
        ({"on_url": "http://pdu:99999/"}, "port"),
        ({"read_on": "("}, "not a regular expression"),
        ({"method": "DELETE"}, "allowed"),
        ({"headers": {"a b": "c"}}, "no name of a header"),
        ({"headers": {"a": "c\r\nd: e"}}, "cannot be printed"),
        ({"headers": "a: b"}, "a table"),
        ({"password": "geheim"}, "passwords do not belong in a file"),
        ({"read_url": "http://pdu/"}, "read_on: missing"),
        ({"read_on": "ON"}, "read_url: missing"),
        ({"auth": "basic"}, "password: missing"),
    ],
)
def test_wrong_keys(written: dict[str, object], message: str) -> None:
    table = {"on_url": "http://pdu/1", "off_url": "http://pdu/0", **written}
    with pytest.raises(ConfigError, match=message) as caught:
        open_switch(Section("boards.toml", "[target.dut.power]", "http", table), name="dut")
    assert "geheim" not in str(caught.value)


def test_a_password_that_is_not_set(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HIL_TEST_PASSWORD")
    with pytest.raises(ConfigError, match="HIL_TEST_PASSWORD"):
        power(serve(basic_only), user="bob", password=SECRET).on()


def test_nothing_is_left_open(serve: Serve) -> None:
    """Sockets that nobody closed would be warned of."""
    import gc
    import warnings

    device = serve(Reply("ON"))
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        reading(device).read()
        with pytest.raises(PowerError):
            power(serve(None), timeout=0.1).on()
        gc.collect()
    assert [one for one in found if one.category is ResourceWarning] == []
