"""Using a device that somebody exports over USB/IP: no kernel module, no root.

One thread reads for each imported device; transfers may be submitted from any.
"""

from __future__ import annotations

import contextlib
import itertools
import socket
import threading
import time
from collections.abc import Sequence
from types import TracebackType

from pytest_hil.errors import ChannelLost, HilError, InfrastructureError, NotThere, nearest
from pytest_hil.usbip.connection import ImporterConnection, Reply
from pytest_hil.usbip.messages import (
    SHUTDOWN,
    UNLINKED,
    Bytes,
    Device,
    Direction,
    IsoPacket,
    Malformed,
    OpStatus,
    RepDevlist,
    RepImport,
    ReqDevlist,
    ReqImport,
    RetSubmit,
    RetUnlink,
    Submit,
    Unlink,
)

Address = tuple[str, int]

# Seconds for an exporter to answer a request, or to confirm that it gave a transfer up.
TIMEOUT = 5.0

_REFUSALS = {
    OpStatus.NA: "it refuses",
    OpStatus.DEV_BUSY: "somebody else has it",
    OpStatus.DEV_ERR: "it is in an error state",
    OpStatus.NODEV: "it exports no such device",
    OpStatus.ERROR: "it failed",
}


class Refused(NotThere):
    """The exporter gives the device to nobody, or not now. ``status`` is its word for that."""

    def __init__(self, message: str, status: int, *, mend: str = "") -> None:
        super().__init__(message, mend=mend)
        self.status = status


def list_devices(address: Address, *, timeout: float = TIMEOUT) -> list[Device]:
    """What an exporter offers. Raises ChannelLost, Malformed, Refused."""
    with _connect(address, timeout) as sock:
        reply = _ask(sock, ImporterConnection(), ReqDevlist(), address, timeout)
    assert isinstance(reply, RepDevlist)
    if reply.status:
        raise Refused(f"the exporter {_name(address)} does not list its devices", reply.status)
    return list(reply.devices)


class Transfer:
    """A transfer that was submitted. Ends by itself, by :meth:`cancel`, or with the connection."""

    def __init__(self, importer: Importer, submit: Submit) -> None:
        self.seqnum = submit.seqnum
        self.direction = submit.direction
        self._importer = importer
        self._over = threading.Event()
        self._reply: RetSubmit | None = None
        self._error: HilError | None = None

    @property
    def done(self) -> bool:
        """Whether it has ended."""
        return self._over.is_set()

    def wait(self, timeout: float | None = None) -> RetSubmit:
        """How it ended. A transfer that is not over in time goes on: see :meth:`cancel`.

        Raises TimeoutError after ``timeout`` seconds, ChannelLost when the exporter is gone.
        """
        if not self._over.wait(timeout):
            raise TimeoutError(f"the transfer {self.seqnum} is not over after {timeout:g} s")
        if self._error is not None:
            raise self._error
        assert self._reply is not None
        return self._reply

    def cancel(self, timeout: float = TIMEOUT) -> RetSubmit:
        """Give it up; how it ended: by −ECONNRESET, or as it had already.

        Raises ChannelLost when the exporter does not confirm that within ``timeout`` seconds.
        """
        self._importer.unlink(self)
        try:
            return self.wait(timeout)
        except TimeoutError:
            error = ChannelLost(
                f"the exporter {self._importer.name} did not answer an unlink within {timeout:g} s"
            )
            self._importer.fail(error)
            raise error from None

    # for the importer

    def end(self, reply: RetSubmit | None, error: HilError | None = None) -> None:
        self._reply, self._error = reply, error
        self._over.set()


class Importer:
    """A device that was imported; a context manager. Until it is closed, nobody else has it.

    Raises Refused, ChannelLost, Malformed.
    """

    def __init__(self, address: Address, busid: str, *, timeout: float = TIMEOUT) -> None:
        self.name = _name(address)
        self._connection = ImporterConnection()
        self._lock = threading.Lock()
        self._writing = threading.Lock()
        self._numbers = itertools.count(1)
        self._transfers: dict[int, Transfer] = {}
        self._unlinks: dict[int, Transfer] = {}
        self._lost: HilError | None = None
        self._socket = _connect(address, timeout)
        try:
            reply = _ask(self._socket, self._connection, ReqImport(busid), address, timeout)
            assert isinstance(reply, RepImport)
            if reply.device is None:
                raise _refused(address, busid, reply.status, timeout)
        except BaseException:
            self._socket.close()
            raise
        self.device = reply.device
        self._socket.settimeout(None)
        self._reader = threading.Thread(
            target=self._read, name=f"hil-usbip-importer-{busid}", daemon=True
        )
        self._reader.start()

    def __repr__(self) -> str:
        return f"<Importer {self.device.busid} of {self.name}>"

    # --- transfers ---

    def submit(
        self,
        endpoint: int,
        *,
        length: int = 0,
        data: Bytes = b"",
        setup: bytes = bytes(8),
        iso: Sequence[IsoPacket] = (),
        interval: int = 1,
        flags: int = 0,
    ) -> Transfer:
        """Begin a transfer. ``endpoint`` is an address: bit 7 says IN.

        An IN brings at most ``length`` bytes; an OUT brings ``data``. ``interval``: frames or
        microframes between two packets; Linux refuses 0 for interrupt and isochronous endpoints
        (usb_submit_urb in drivers/usb/core/urb.c), and asks it of no others. Raises ChannelLost.
        """
        way = Direction.IN if endpoint & 0x80 else Direction.OUT
        submit = Submit(
            seqnum=next(self._numbers) & 0xFFFFFFFF,
            devid=self.device.devid,
            direction=way,
            endpoint=endpoint & 0xF,
            length=length if way is Direction.IN else len(data),
            setup=setup,
            data=b"" if way is Direction.IN else data,
            flags=flags,
            interval=interval,
            iso=tuple(iso),
        )
        transfer = Transfer(self, submit)
        with self._writing:
            with self._lock:
                self._raise_if_lost()
                self._transfers[submit.seqnum] = transfer
                out = self._connection.send(submit)
            self._send(out)
        return transfer

    def unlink(self, transfer: Transfer) -> None:
        """Ask for a transfer to be given up. Nothing happens if it is over."""
        with self._writing:
            with self._lock:
                if transfer.done or transfer.seqnum not in self._transfers:
                    return
                number = next(self._numbers) & 0xFFFFFFFF
                self._unlinks[number] = transfer
                message = Unlink(number, self.device.devid, transfer.seqnum, transfer.direction)
                out = self._connection.send(message)
            self._send(out)

    def control(
        self,
        request_type: int,
        request: int,
        value: int = 0,
        index: int = 0,
        data: Bytes | int = b"",
        *,
        timeout: float | None = TIMEOUT,
    ) -> RetSubmit:
        """A control transfer: ``data`` is what an OUT brings, or how much an IN may. Cancelled when
        it takes longer than ``timeout`` seconds: TimeoutError. Raises ChannelLost."""
        length = data if isinstance(data, int) else len(data)
        fields = (each.to_bytes(2, "little") for each in (value, index, length))
        setup = bytes((request_type, request)) + b"".join(fields)
        body = b"" if isinstance(data, int) else data
        address = request_type & 0x80
        return self._finish(self.submit(address, length=length, data=body, setup=setup), timeout)

    def read(self, endpoint: int, length: int, *, timeout: float | None = TIMEOUT) -> RetSubmit:
        """A bulk or interrupt IN. Raises TimeoutError (it was cancelled then), ChannelLost."""
        return self._finish(self.submit(endpoint | 0x80, length=length), timeout)

    def write(self, endpoint: int, data: Bytes, *, timeout: float | None = TIMEOUT) -> RetSubmit:
        """A bulk or interrupt OUT. Raises TimeoutError (it was cancelled then), ChannelLost."""
        return self._finish(self.submit(endpoint & 0x7F, data=data), timeout)

    def _finish(self, transfer: Transfer, timeout: float | None) -> RetSubmit:
        try:
            return transfer.wait(timeout)
        except TimeoutError:
            reply = transfer.cancel()
            if reply.status != UNLINKED:
                return reply  # it ended while it was given up: nothing of it is lost
            raise

    # --- the connection ---

    def _send(self, data: bytes) -> None:
        try:
            self._socket.sendall(data)
        except OSError as error:
            lost = ChannelLost(f"the exporter {self.name} is gone: {error.strerror or error}")
            self.fail(lost)
            raise lost from None

    def _read(self) -> None:
        connection = self._connection
        try:
            while True:
                with self._lock:
                    place = connection.buffer()
                count = self._socket.recv_into(place)
                place.release()
                if not count:
                    self.fail(ChannelLost(f"the exporter {self.name} closed the connection"))
                    return
                with self._lock:
                    replies = connection.advance(count)
                for reply in replies:
                    self._ended(reply)
        except Malformed as error:
            self.fail(error)
        except (OSError, ValueError) as error:
            self.fail(ChannelLost(f"the exporter {self.name} is gone: {error}"))

    def _ended(self, reply: Reply) -> None:
        if isinstance(reply, RetSubmit):
            with self._lock:
                transfer = self._transfers.pop(reply.seqnum, None)
            if transfer is not None:
                transfer.end(reply)
        elif isinstance(reply, RetUnlink):
            with self._lock:
                transfer = self._unlinks.pop(reply.seqnum, None)
                known = transfer is not None and transfer.seqnum in self._transfers
                if transfer is not None and known:
                    del self._transfers[transfer.seqnum]
            if transfer is not None and known:
                transfer.end(RetSubmit(transfer.seqnum, reply.status or UNLINKED))

    def fail(self, error: HilError) -> None:
        """The connection is of no use any more: every transfer ends with this."""
        with self._lock:
            if self._lost is None:
                self._lost = error
            transfers = list(self._transfers.values())
            self._transfers.clear()
            self._unlinks.clear()
        for transfer in transfers:
            transfer.end(RetSubmit(transfer.seqnum, SHUTDOWN), error)
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def _raise_if_lost(self) -> None:
        if self._lost is not None:
            raise self._lost

    @property
    def lost(self) -> HilError | None:
        """Why the connection is gone, if it is."""
        return self._lost

    def close(self) -> None:
        """Give the device back. May be called twice, from any thread."""
        self.fail(ChannelLost(f"the device {self.device.busid} of {self.name} was given back"))
        if threading.current_thread() is not self._reader:
            self._reader.join()
        self._socket.close()

    def __enter__(self) -> Importer:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _name(address: Address) -> str:
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _connect(address: Address, timeout: float) -> socket.socket:
    try:
        sock = socket.create_connection(address, timeout)
    except OSError as error:
        raise ChannelLost(
            f"no exporter answers at {_name(address)}: {error.strerror or error}",
            mend="is it running, and is that its port?",
        ) from None
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    return sock


def _ask(
    sock: socket.socket,
    connection: ImporterConnection,
    request: ReqDevlist | ReqImport,
    address: Address,
    timeout: float,
) -> Reply:
    """Send a request and wait for its answer."""
    deadline = time.monotonic() + timeout
    try:
        sock.sendall(connection.send(request))
        while True:
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError
            sock.settimeout(left)
            place = connection.buffer()
            count = sock.recv_into(place)
            if not count:
                raise ChannelLost(f"the exporter {_name(address)} closed the connection")
            replies = connection.advance(count)
            if replies:
                return replies[0]
    except TimeoutError:
        raise ChannelLost(
            f"the exporter {_name(address)} did not answer within {timeout:g} s"
        ) from None
    except OSError as error:
        raise ChannelLost(f"the exporter {_name(address)} is gone: {error.strerror}") from None


def _refused(address: Address, busid: str, status: int, timeout: float) -> HilError:
    why = _REFUSALS.get(OpStatus(status), "") if status in set(OpStatus) else f"status {status}"
    mend = ""
    with contextlib.suppress(InfrastructureError, NotThere):
        known = [device.busid for device in list_devices(address, timeout=timeout)]
        mend = "it must be released there first" if busid in known else nearest(busid, known)
    return Refused(f"the exporter {_name(address)} does not give {busid}: {why}", status, mend=mend)
