"""Something happened on the target that whoever waits for it must know at once: its crash."""

from __future__ import annotations

import threading
from collections.abc import Callable


class Interruption:
    """An error that is given once: to who waits now, or to who is the next to wait.

    Any thread may call. Who waits has a waker, which is called from the thread that says what
    happened, and asks :meth:`take`.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._error: Exception | None = None
        self._wakers: tuple[Callable[[], object], ...] = ()

    def on_change(self, waker: Callable[[], object]) -> Callable[[], None]:
        """Call ``waker`` whenever there is something to take. It must not wait.

        Returns the function that ends it.
        """
        with self._lock:
            self._wakers = (*self._wakers, waker)

        def end() -> None:
            with self._lock:
                self._wakers = tuple(one for one in self._wakers if one is not waker)

        return end

    def give(self, error: Exception) -> None:
        """Let it end what waits; the first one that nobody took stays."""
        with self._lock:
            self._error = self._error or error
            wakers = self._wakers
        for waker in wakers:
            waker()

    def take(self) -> Exception | None:
        """The error, if there is one; then it is gone."""
        with self._lock:
            error, self._error = self._error, None
        return error

    def check(self) -> None:
        """Raise the error, if there is one; then it is gone."""
        error = self.take()
        if error is not None:
            raise error.with_traceback(None)
