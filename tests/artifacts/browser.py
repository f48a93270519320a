"""Chromium without a window, driven over the DevTools protocol on a pair of pipes.

Nothing listens anywhere, no other package is needed, and the browser ends with its pipes.
"""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import time
from collections import deque
from pathlib import Path
from types import TracebackType
from typing import Any

import pytest

PATIENCE = 60.0
_FLAGS = (
    *("--headless=new", "--remote-debugging-pipe", "--no-first-run", "--hide-scrollbars"),
    *("--disable-gpu", "--no-sandbox", "--disable-dev-shm-usage", "--mute-audio"),
    *("--disable-extensions", "--disable-background-networking", "--disable-sync"),
    # Nothing that a page asks for gets out, and it is seen that it asked.
    "--host-resolver-rules=MAP * ~NOTFOUND",
)


def program() -> str:
    """The browser; skips the test where there is none."""
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if found := shutil.which(name):
            return found
    pytest.skip("there is no Chromium: apt-get install chromium")


class Browser:
    """One page in a browser of its own; a context manager.

    ``problems`` are the page's errors, and what its Content-Security-Policy refused. ``requests``
    are the URLs that it asked for.
    """

    def __init__(self, profile: Path) -> None:
        ours, its_out = os.pipe()
        its_in, self._to = os.pipe()
        self._from = ours

        def place() -> None:
            # The protocol's two ends are 3 and 4; either may be in the other's place now.
            spare = os.dup(its_out)
            os.dup2(its_in, 3)
            os.dup2(spare, 4)

        try:
            self._process = subprocess.Popen(
                [program(), *_FLAGS, f"--user-data-dir={profile}", "about:blank"],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                # No thread of the tests holds a lock here.
                preexec_fn=place,
                close_fds=False,
                env={**os.environ, "HOME": str(profile)},
            )
        finally:
            os.close(its_out)
            os.close(its_in)
        self._number = 0
        self._buffer = b""
        self._events: deque[dict[str, Any]] = deque()
        self.problems: list[str] = []
        self.requests: list[str] = []
        self._session = ""
        (page,) = (t for t in self._call("Target.getTargets")["targetInfos"] if t["type"] == "page")
        self._session = self._call(
            "Target.attachToTarget", targetId=page["targetId"], flatten=True
        )["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self._call(f"{domain}.enable")

    def __enter__(self) -> Browser:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        os.close(self._to)
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        os.close(self._from)

    def _send(self, method: str, **parameters: Any) -> int:
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        data = memoryview(json.dumps(message).encode() + b"\0")
        while data:
            data = data[os.write(self._to, data) :]
        return self._number

    def _call(self, method: str, **parameters: Any) -> dict[str, Any]:
        number = self._send(method, **parameters)
        while True:
            message = self._message()
            if message.get("id") == number:
                assert "error" not in message, (method, message["error"])
                result: dict[str, Any] = message["result"]
                return result

    def _message(self) -> dict[str, Any]:
        deadline = time.monotonic() + PATIENCE
        while b"\0" not in self._buffer:
            left = deadline - time.monotonic()
            ready, _, _ = select.select([self._from], [], [], max(0.0, left))
            assert ready, "the browser does not answer"
            data = os.read(self._from, 1 << 20)
            assert data, "the browser has ended"
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\0")
        message: dict[str, Any] = json.loads(line)
        self._note(message.get("method", ""), message.get("params", {}))
        return message

    def _note(self, method: str, facts: dict[str, Any]) -> None:
        if method == "Runtime.exceptionThrown":
            details = facts["exceptionDetails"]
            self.problems.append(str(details.get("exception", {}).get("description", details)))
        elif method == "Log.entryAdded" and facts["entry"]["level"] in ("error", "warning"):
            self.problems.append(facts["entry"]["text"])
        elif method == "Network.requestWillBeSent":
            self.requests.append(facts["request"]["url"])
        elif method:
            self._events.append({"method": method})

    # What a test does with it

    def resize(self, width: int, height: int, *, dark: bool = False) -> None:
        self._call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self._call("Emulation.setEmulatedMedia", features=[scheme])

    def open(self, page: Path, fragment: str = "") -> None:
        """Load a page anew, and wait until its script has run."""
        self._call("Page.navigate", url="about:blank")
        self.requests.clear()
        self._call("Page.navigate", url=page.as_uri() + fragment)
        self.until("document.documentElement.dataset.ready")

    def run(self, script: str) -> Any:
        """The value of a JavaScript expression; a promise's when it is kept."""
        found = self._call(
            "Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True
        )
        assert "exceptionDetails" not in found, (script, found["exceptionDetails"])
        return found["result"].get("value")

    def until(self, condition: str) -> Any:
        """Wait until an expression is true, looking with each frame that the page draws."""
        return self.run(
            "new Promise((done, lost) => { const end = performance.now() + 30000;"
            f" const look = () => {{ let value; try {{ value = {condition}; }} catch {{}}"
            " if (value) done(value); else if (performance.now() > end)"
            f" lost(new Error({json.dumps('never: ' + condition)}));"
            " else requestAnimationFrame(look); }; look(); })"
        )

    def press(self, *keys: str) -> None:
        """Keys as a keyboard gives them: "j", "Enter", "Escape", "ArrowDown", "Tab"."""
        codes = {
            "Enter": 13,
            "Escape": 27,
            "Tab": 9,
            "ArrowLeft": 37,
            "ArrowUp": 38,
            "ArrowRight": 39,
            "ArrowDown": 40,
        }
        for key in keys:
            text = {"Enter": "\r"}.get(key, key if len(key) == 1 else "")
            code = codes.get(key, ord(key.upper()) if len(key) == 1 else 0)
            facts: dict[str, Any] = {"key": key, "windowsVirtualKeyCode": code}
            self._call("Input.dispatchKeyEvent", type="keyDown", text=text, **facts)
            self._call("Input.dispatchKeyEvent", type="keyUp", **facts)

    def type(self, text: str) -> None:
        self.press(*text)

    def mouse(self, x: float, y: float, *, click: bool = False) -> None:
        self._call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)
        if click:
            for kind in ("mousePressed", "mouseReleased"):
                self._call(
                    "Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1
                )

    def picture(self, file: Path) -> None:
        found = self._call("Page.captureScreenshot", format="png")
        file.write_bytes(base64.b64decode(found["data"]))
