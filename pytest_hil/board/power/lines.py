"""DTR or RTS of a serial port, wired to a relay, a transistor or a board's reset."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import Any, ClassVar

from pytest_hil.board.console.serial import port
from pytest_hil.board.power.serial_port import open_port
from pytest_hil.board.power.switch import PowerError
from pytest_hil.config import values
from pytest_hil.config.driver import key, one_of


@dataclass(frozen=True, slots=True)
class LinesOptions:
    """Keys of a ``power`` table with ``driver = "lines"``."""

    port: str = key(
        port, help="the serial port, as of a console; not the same one: it stays open here"
    )
    line: str = key(one_of("dtr", "rts"), help="the line that switches")
    inverted: bool = key(
        values.boolean, default=False, help="true: power is on while the line is not asserted"
    )


class LinesPower:
    """A line of a serial port that this run holds open.

    The port is opened when it is first switched; then Linux asserts both lines for a moment.
    The line is left as it is at the end, as far as its driver does that.
    """

    Options: ClassVar[type] = LinesOptions

    def __init__(self, options: LinesOptions) -> None:
        self._options = options
        self._port: Any = None

    def on(self) -> None:
        """Raises PowerError, and InfrastructureError when the port may not be used."""
        self._switch(on=True)

    def off(self) -> None:
        """Raises as :meth:`on`."""
        self._switch(on=False)

    def read(self) -> bool | None:
        """What the port's driver says of the line. Raises PowerError.

        None before it was switched, because to open the port would switch it; and behind a URL,
        because RFC 2217 servers do not say it.
        """
        if self._port is None or not hasattr(self._port, "fd"):
            return None
        import fcntl
        import termios

        bit = termios.TIOCM_DTR if self._options.line == "dtr" else termios.TIOCM_RTS
        try:
            lines = int.from_bytes(fcntl.ioctl(self._port.fd, termios.TIOCMGET, bytes(4)), "little")
        except OSError as error:
            raise self._lost(error) from error
        return bool(lines & bit) is not self._options.inverted

    def close(self) -> None:
        port, self._port = self._port, None
        if port is not None:
            with contextlib.suppress(Exception):
                _keep_lines(port)
            # A server may be gone, and be asked to close all the same.
            with contextlib.suppress(Exception):
                port.close()

    def _switch(self, *, on: bool) -> None:
        asserted = on is not self._options.inverted
        fresh = self._port is None
        if fresh:
            self._port = self._opened(asserted)
        try:
            # Also of a fresh one: pyserial's open() forgives a port that has no such line.
            setattr(self._port, self._options.line, asserted)
        # termios.error, and pyserial's ValueError for a server that says no, are no OSErrors.
        except Exception as error:
            raise self._lost(error) from error

    def _opened(self, asserted: bool) -> Any:
        name = self._options.line
        other = "rts" if name == "dtr" else "dtr"

        def prepare(line: Any) -> None:
            # From its first moment, and the other line is not ours.
            setattr(line, name, asserted)
            setattr(line, f"_update_{other}_state", lambda: None)

        return open_port(self._options.port, baudrate=9600, prepare=prepare)

    def _lost(self, error: Exception) -> PowerError:
        self.close()
        return PowerError(
            f"{self._options.line.upper()} of {self._options.port} cannot be switched: {error}",
            mend="is it a port that has this line (a pty has none), and still there?",
        )


def _keep_lines(port: Any) -> None:
    """Let the kernel not drop both lines when it is closed."""
    import termios

    if hasattr(port, "fd"):
        attributes = termios.tcgetattr(port.fd)
        attributes[2] &= ~termios.HUPCL
        termios.tcsetattr(port.fd, termios.TCSANOW, attributes)
