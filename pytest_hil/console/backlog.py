"""The last bytes of a stream, by their offset in the whole of it."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from itertools import pairwise


class Backlog:
    """Keeps at least the last ``limit`` bytes (and at most half as many again).

    Offsets count from the stream's first byte; ``start`` is the first that is still here.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.start = 0
        self._data = bytearray()

    @property
    def end(self) -> int:
        return self.start + len(self._data)

    def append(self, data: bytes) -> None:
        self._data += data
        excess = len(self._data) - self.limit
        # Not byte by byte: cutting the head costs a copy of what is kept.
        if excess > self.limit // 2:
            del self._data[:excess]
            self.start += excess

    def read(self, start: int, end: int | None = None) -> bytes:
        """The bytes between two offsets, without those that were dropped."""
        end = self.end if end is None else end
        return bytes(self._data[max(start - self.start, 0) : max(end - self.start, 0)])

    def text(self, start: int, end: int | None = None) -> str:
        """The same as text, of a backlog that holds UTF-8; a cut first character is left out."""
        return self.read(start, end).decode("utf-8", "ignore")

    def left_out(self, start: int) -> int:
        """How many bytes from ``start`` on were dropped."""
        return max(0, self.start - start)


class TimedBacklog(Backlog):
    """A backlog that knows when its bytes came, to a hundredth of a second."""

    def __init__(self, limit: int) -> None:
        super().__init__(limit)
        self._times: deque[tuple[int, float]] = deque()

    def append_at(self, data: bytes, t: float) -> None:
        if not data:
            return
        if not self._times or t - self._times[-1][1] >= 0.01:
            self._times.append((self.end, t))
        self.append(data)
        while len(self._times) > 1 and self._times[1][0] <= self.start:
            self._times.popleft()

    def pieces(self, start: int, end: int | None = None) -> Iterator[tuple[float, bytes]]:
        """(time, bytes) between two offsets, one for each moment."""
        end = self.end if end is None else end
        for (offset, t), (after, _) in pairwise([*self._times, (self.end, 0.0)]):
            data = self.read(max(offset, start), min(after, end))
            if data:
                yield t, data
