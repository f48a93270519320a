"""An asyncio event loop in a thread of its own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from pytest_hil.errors import InfrastructureError

T = TypeVar("T")

# Seconds for what only ever waits for its turn in the loop.
_TURN = 30.0


class LoopThread:
    """Runs a loop until it is closed. Any thread may call; the loop's own must not wait."""

    def __init__(self, name: str) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        try:
            self.loop.run_forever()
        finally:
            self.loop.close()

    @property
    def inside(self) -> bool:
        """Whether this is the loop's own thread."""
        return threading.get_ident() == self._thread.ident

    def soon(self, call: Callable[..., object], *args: object) -> bool:
        """Let the loop do it; False when there is no loop any more."""
        try:
            self.loop.call_soon_threadsafe(call, *args)
        except RuntimeError:
            return False
        return True

    def wait(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Let the loop do it, and wait for the result. Raises what it raises."""
        try:
            future = asyncio.run_coroutine_threadsafe(coroutine, self.loop)
        except RuntimeError:
            coroutine.close()
            raise InfrastructureError("the exporter is closed") from None
        try:
            return future.result(_TURN)
        except TimeoutError:
            future.cancel()
            raise InfrastructureError(
                f"the exporter's thread did not answer for {_TURN:g} s",
                mend="a device's handler must not wait: complete the transfer from another thread",
            ) from None

    def close(self) -> None:
        """Stop it. May be called twice."""
        if self.soon(self.loop.stop):
            self._thread.join(_TURN)
