"""A console on a serial line: of this host, or behind any URL that pyserial knows."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import stat
import termios
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pytest_hil.board.console import ports
from pytest_hil.board.console.bridge import BridgedTransport
from pytest_hil.board.console.tcp import connect, unreachable
from pytest_hil.config import values
from pytest_hil.config.driver import address, count, key, one_of
from pytest_hil.config.values import BadValue, shown, wrong_kind
from pytest_hil.console.transport import Transport
from pytest_hil.errors import ChannelLost, HostLacks, InfrastructureError

_URL = re.compile(r"([a-z0-9]+)://(.*)", re.ASCII | re.IGNORECASE)
# Seconds; as long as pyserial gives rfc2217.
_CONNECT_TIMEOUT = 5.0
_PARITIES = {"none": "N", "even": "E", "odd": "O", "mark": "M", "space": "S"}
# Linux's majors of ptys (Documentation/admin-guide/devices.txt).
_PTY_MAJORS = range(136, 144)


def port(value: object) -> str:
    """A device's path, a place ("loc:1-1.4"), an adapter ("usb:0403:6001:A50285BI"), or a URL."""
    text = values.text(value)
    forms = 'write "/dev/serial/by-id/…", "loc:1-1.4", "usb:VID:PID:SERIAL" or "rfc2217://host:1"'
    if text.startswith("loc:"):
        right = ports.LOCATION.fullmatch(text) is not None
    elif text.startswith("usb:"):
        right = ports.USB.fullmatch(text) is not None
    elif match := _URL.fullmatch(text):
        if match[1].lower() == "socket":
            address(match[2].rstrip("/"))
        right = True
    else:
        right = text.startswith("/")
    if not right:
        raise BadValue(f"{shown(text)} is no serial port", forms)
    return text


def stopbits(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise wrong_kind(value, "1, 1.5 or 2")
    if value not in (1, 1.5, 2):
        raise BadValue(f"{shown(value)} is no number of stop bits", "allowed: 1, 1.5, 2")
    return value


@dataclass(frozen=True, slots=True)
class SerialOptions:
    """Keys of a ``console`` table with ``driver = "serial"``."""

    port: str = key(
        port,
        help='"/dev/serial/by-id/…", another path, "loc:1-1.4" (USB location), '
        '"usb:VID:PID[:SERIAL]", or a URL of pyserial: "rfc2217://host:port", "socket://host:port"',
    )
    baudrate: int = key(count(50, 20_000_000), default=115200, help="bits per second")
    bytesize: int = key(count(5, 8), default=8, help="bits per character")
    parity: str = key(one_of(*_PARITIES), default="none", help="the parity bit")
    stopbits: float = key(stopbits, default=1, help="1, 1.5 or 2")
    rtscts: bool = key(values.boolean, default=False, help="flow control by the lines RTS and CTS")
    xonxoff: bool = key(values.boolean, default=False, help="flow control by Ctrl-S and Ctrl-Q")
    dtr: bool | None = key(
        values.boolean,
        default=None,
        help="the state of DTR once it is open; without it DTR is as the kernel sets it at open",
    )
    rts: bool | None = key(values.boolean, default=None, help="the same of RTS")


class SerialConsole:
    """A serial port, exclusively ours. What the target says is never echoed to it."""

    Options = SerialOptions

    def __init__(self, options: SerialOptions) -> None:
        self._options = options
        self.watch: Path | None = None
        if options.port.startswith(("loc:", "usb:")):
            self.watch = Path("/dev/tty*")
        elif not _URL.fullmatch(options.port):
            self.watch = Path(options.port)

    def open(self) -> Transport:
        """Open it. Raises InfrastructureError, ChannelLost."""
        wanted = self._options.port
        url = _URL.fullmatch(wanted)
        if url and url[1].lower() == "socket":
            return connect(*address(url[2].rstrip("/")), timeout=_CONNECT_TIMEOUT)
        try:
            import serial  # type: ignore[import-untyped,unused-ignore]
        except ImportError:
            raise HostLacks(
                "pyserial is not installed", mend="install it: pip install 'pytest-hil[serial]'"
            ) from None
        if url:
            return self._open_url(serial, wanted)
        return self._open_device(serial, ports.find(wanted))

    def _open_device(self, serial: Any, device: str) -> TtyTransport:
        line = serial.Serial(**self._settings(), exclusive=True)
        # VMIN = 1: an empty line is EAGAIN; with pyserial's 0 it would look like a hang-up.
        line.inter_byte_timeout = 0.0
        line.port = device
        _quiet(line, self._options)
        try:
            line.open()
        except OSError as error:
            raise not_opened(device, error) from error
        except (ValueError, termios.error) as error:
            raise self._not_set(device, error) from error
        try:
            self._check_taken(line.fd)
            _make_raw(line.fd)
            fcntl.ioctl(line.fd, termios.TIOCEXCL)
            _check_alone(device, line.fd)
            return TtyTransport(line)
        except (OSError, termios.error) as error:
            line.close()
            raise ChannelLost(f"{device} cannot be set up: {error}") from error
        except ValueError as error:
            line.close()
            raise self._not_set(device, error) from error
        except BaseException:
            line.close()
            raise

    def _check_taken(self, fd: int) -> None:
        """tcsetattr(3) is content when a device takes any of its settings. Raises ValueError."""
        cflag = termios.tcgetattr(fd)[2]
        if cflag & termios.CSIZE != getattr(termios, f"CS{self._options.bytesize}"):
            raise ValueError("it keeps another number of bits")
        if bool(cflag & termios.PARENB) != (self._options.parity != "none"):
            raise ValueError("it keeps another parity")

    def _not_set(self, device: str, error: Exception) -> InfrastructureError:
        options = self._options
        return InfrastructureError(
            f"{device} does not take these settings: {options.baudrate} baud, {options.bytesize} "
            f"bits, parity {options.parity}, {options.stopbits:g} stop bits ({error})",
            mend="write settings in boards.toml that the adapter's chip can do",
        )

    def _open_url(self, serial: Any, url: str) -> BridgedTransport:
        try:
            line = serial.serial_for_url(url, do_not_open=True, **self._settings())
            _quiet(line, self._options)
            return BridgedTransport(line, url)
        except ValueError as error:
            raise InfrastructureError(
                f"{url} cannot be opened: {error}",
                mend="pyserial's documentation lists its URLs and their options",
            ) from error
        except OSError as error:
            # pyserial makes one sentence of it; what it was is behind it.
            cause = error.__context__
            if isinstance(cause, OSError):
                host, _, at = url.partition("://")[2].partition("/")[0].rpartition(":")
                raise unreachable(host.strip("[]"), at, cause) from error
            raise ChannelLost(
                f"{url} cannot be opened: {error}",
                mend="does its server speak RFC 2217 on that port, and is it free?"
                if url.lower().startswith("rfc2217:")
                else "",
            ) from error

    def _settings(self) -> dict[str, Any]:
        options = self._options
        return {
            "baudrate": options.baudrate,
            "bytesize": options.bytesize,
            "parity": _PARITIES[options.parity],
            "stopbits": options.stopbits,
            "rtscts": options.rtscts,
            "xonxoff": options.xonxoff,
        }


def _quiet(line: Any, options: SerialOptions) -> None:
    """Make pyserial's open() leave alone what it was not told to touch.

    It discards the input (a board that was faster than us would lose its first words) and sets DTR
    and RTS, to "on" if nobody said otherwise.
    """
    line._reset_input_buffer = lambda: None
    line.reset_input_buffer = line.reset_output_buffer = lambda: None
    if options.dtr is None:
        line._update_dtr_state = lambda: None
    else:
        line.dtr = options.dtr
    if options.rts is None:
        line._update_rts_state = lambda: None
    else:
        line.rts = options.rts


def _make_raw(fd: int) -> None:
    """What pyserial leaves of a tty's cooking, and no falling DTR when we close it."""
    attributes = termios.tcgetattr(fd)
    # A target that is switched on sends a break: BRKINT would discard what came with it.
    attributes[0] &= ~(termios.BRKINT | termios.IGNPAR | termios.PARMRK | termios.IMAXBEL)
    attributes[2] &= ~termios.HUPCL
    termios.tcsetattr(fd, termios.TCSANOW, attributes)


def _check_alone(device: str, fd: int) -> None:
    """Raise if somebody else reads along without a lock: each byte goes to one of us only."""
    if os.major(os.fstat(fd).st_rdev) in _PTY_MAJORS:
        return  # the program that made a pty may well keep both ends
    if ports.holders(device):
        raise _busy(device)


def not_opened(device: str, error: OSError) -> InfrastructureError:
    if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ENODEV, errno.ENXIO):
        return ports.missing(device)
    if error.errno in (errno.EACCES, errno.EPERM):
        return _forbidden(device)
    if error.errno in (errno.EBUSY, errno.EAGAIN):
        return _busy(device)
    cause = error.__context__
    if isinstance(cause, termios.error) and cause.args[0] in (errno.ENOTTY, errno.EINVAL):
        return InfrastructureError(
            f"{device} is no serial port: {error}", mend="is the path right?"
        )
    return ChannelLost(f"{device} cannot be opened: {error}")


def _forbidden(device: str) -> InfrastructureError:
    import grp

    group = "dialout"
    try:
        info = os.stat(device)  # noqa: PTH116
        if info.st_gid and info.st_mode & stat.S_IWGRP:
            group = grp.getgrgid(info.st_gid).gr_name
    except (OSError, KeyError):
        pass
    return HostLacks(
        f"this user may not open {device}",
        mend=f"sudo usermod -a -G {group} $USER, then log in again",
    )


def _busy(device: str) -> InfrastructureError:
    who = ports.holders(device)
    if who:
        names = " and ".join(str(holder) for holder in who)
        pids = " ".join(str(holder.pid) for holder in who)
        return InfrastructureError(
            f"{device} is in use by {names}", mend=f"end it: kill {pids}, or use another port"
        )
    return InfrastructureError(
        f"{device} is in use, by this run itself or by a process that this user cannot see",
        mend=f"see who has it: sudo fuser -v {device}",
    )


class TtyTransport:
    """An open port of pyserial's, of which it becomes the owner, read and written directly."""

    def __init__(self, line: Any) -> None:
        self._line = line
        self._fd: int = line.fd

    def fileno(self) -> int:
        return self._fd

    def read(self, size: int) -> bytes:
        return os.read(self._fd, size)

    def write(self, data: memoryview) -> int:
        return os.write(self._fd, data)

    def close(self) -> None:
        if self._line.is_open:
            try:
                # Somebody else may have the tty open still; then the lock would stay.
                fcntl.ioctl(self._fd, termios.TIOCNXCL)
            except OSError:
                pass  # it is gone
            self._line.close()
