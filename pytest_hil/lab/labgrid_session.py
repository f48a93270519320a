"""A connection to a labgrid coordinator: its view of places and resources, and what is asked of it.

labgrid knows a client by the connection that its stream came over, so each session has a connection
of its own, and its calls go the same way. A thread of the session reads what changes; whoever waits
polls :meth:`Session.fileno`.
"""

from __future__ import annotations

import itertools
import os
import queue
import threading
import time
from collections.abc import Mapping
from typing import Any

from pytest_hil.lab import labgrid_wire as wire
from pytest_hil.lab.labgrid_places import Place, Reserved, Resource
from pytest_hil.lab.registry import LabError

# Seconds: until the coordinator has sent all that it has; for a call; for one in which the
# coordinator asks an exporter (it gives each resource 10 s, and others may be before us).
CONNECT, CALL, ACQUIRE = 10.0, 10.0, 60.0

# As labgrid's own client has them, so that a coordinator that fell silent is noticed in 20 s. The
# last: two sessions of a process must not share a connection.
_CHANNEL = (
    ("grpc.keepalive_time_ms", 7_500),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.ping_timeout_ms", 10_000),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.use_local_subchannel_pool", 1),
)


class Refused(Exception):
    """The coordinator does not do it, and says why."""


class Session:
    """Made by connecting, within a bounded time; of no use when it broke. Raises LabError.

    ``name`` is what others see: "host/user". Any thread may call.
    """

    def __init__(self, address: str, name: str, *, connect: float = CONNECT) -> None:
        self.address = address
        self.name = name
        self._grpc = wire.grpc()
        self._changed = threading.Condition()
        self._places: dict[str, Place] = {}
        self._resources: dict[tuple[str, str, str], Resource] = {}
        self._synced = 0
        self._numbers = itertools.count(1)
        self._broken: LabError | None = None
        self._closed = False
        self._outgoing: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._bell = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._channel = self._grpc.insecure_channel(address, options=_CHANNEL)
        self._calls = {
            method: self._channel.unary_unary(
                wire.path(method),
                request_serializer=lambda one: one.SerializeToString(),
                response_deserializer=wire.message(f"{method}Response").FromString,
            )
            for method in wire.METHODS
        }
        self._stream = self._channel.stream_stream(
            wire.path(wire.STREAM),
            request_serializer=lambda one: one.SerializeToString(),
            response_deserializer=wire.message("ClientOutMessage").FromString,
        )(iter(self._outgoing.get, None))
        self._reader = threading.Thread(target=self._read, name="hil-labgrid", daemon=True)
        self._reader.start()
        try:
            self._send(startup={"version": "pytest-hil", "name": name})
            self._send(subscribe={"all_places": True})
            self._send(subscribe={"all_resources": True})
            self.sync(connect)
        except BaseException:
            self.close()
            raise

    # --- what it sees ---

    @property
    def places(self) -> Mapping[str, Place]:
        """All places, as last heard."""
        with self._changed:
            return dict(self._places)

    @property
    def resources(self) -> Mapping[str, Resource]:
        """All that is exported, by "exporter/group/class/name"."""
        with self._changed:
            return {str(one): one for one in self._resources.values()}

    @property
    def broken(self) -> LabError | None:
        """Why it is of no use any more."""
        with self._changed:
            return self._broken

    def fileno(self) -> int:
        """Readable when something changed, until :meth:`quiet`."""
        return self._bell

    def quiet(self) -> None:
        try:
            os.eventfd_read(self._bell)
        except BlockingIOError:
            pass

    def sync(self, seconds: float | None = None) -> None:
        """Until all that the coordinator said before now is seen here. Raises LabError."""
        seconds = CALL if seconds is None else seconds
        number = next(self._numbers)
        self._send(sync={"id": number})
        deadline = time.monotonic() + seconds
        with self._changed:
            while self._synced < number and self._broken is None:
                left = deadline - time.monotonic()
                if left <= 0:
                    raise self._silent(seconds)
                self._changed.wait(left)
            if self._broken is not None:
                raise self._broken

    # --- what it asks for ---

    def acquire(self, place: str) -> None:
        """Take a place. Raises Refused, and LabError: then it may have been taken or not."""
        self._call("AcquirePlace", ACQUIRE, placename=place)

    def release(self, place: str, owner: str) -> None:
        """Give a place back, if ``owner`` has it. Raises Refused, LabError."""
        self._call("ReleasePlace", ACQUIRE, placename=place, fromuser=owner)

    def reserve(self, tags: Mapping[str, str], priority: float) -> Reserved:
        """Ask for a place with these tags. It ends when nobody polls it for 60 s. Raises too."""
        request = wire.message("CreateReservationRequest")(prio=priority)
        request.filters["main"].filter.update(tags)
        return Reserved.read(self._ask("CreateReservation", CALL, request).reservation)

    def poll(self, token: str) -> Reserved:
        """How a reservation is, which lives on by that. Raises Refused when it is not there."""
        return Reserved.read(self._call("PollReservation", CALL, token=token).reservation)

    def cancel(self, token: str) -> None:
        """End a reservation. Raises Refused when it is not there."""
        self._call("CancelReservation", CALL, token=token)

    def reservations(self) -> list[Reserved]:
        answer = self._call("GetReservations", CALL)
        return [Reserved.read(one) for one in answer.reservations]

    def places_now(self) -> list[Place]:
        """All places, asked for. Raises LabError."""
        return [Place.read(one) for one in self._call("GetPlaces", CALL).places]

    def close(self) -> None:
        """May be called twice."""
        with self._changed:
            if self._closed:
                return
            self._closed = True
        self._outgoing.put(None)
        self._stream.cancel()
        self._channel.close()
        if self._reader is not threading.current_thread():
            self._reader.join(CALL)
        os.close(self._bell)

    # --- how ---

    def _send(self, **kind: Mapping[str, object]) -> None:
        self._outgoing.put(wire.message("ClientInMessage")(**kind))

    def _call(self, method: str, seconds: float, **fields: object) -> Any:
        return self._ask(method, seconds, wire.message(f"{method}Request")(**fields))

    def _ask(self, method: str, seconds: float, request: Any) -> Any:
        if (broken := self.broken) is not None:
            raise broken
        code = self._grpc.StatusCode
        try:
            return self._calls[method](request, timeout=seconds)
        except self._grpc.RpcError as error:
            # What its handlers abort a call with (labgrid/remote/coordinator.py).
            if error.code() in (
                code.FAILED_PRECONDITION,
                code.PERMISSION_DENIED,
                code.INVALID_ARGUMENT,
            ):
                raise Refused(error.details()) from error
            if error.code() == code.DEADLINE_EXCEEDED:
                raise self._silent(seconds) from error
            raise self._unreachable(error) from error
        except ValueError as error:  # "Cannot invoke RPC on closed channel!"
            raise LabError(f"labgrid's coordinator at {self.address}: {error}") from error

    def _read(self) -> None:
        broken = LabError(f"labgrid's coordinator at {self.address} ended the connection")
        try:
            for message in self._stream:
                with self._changed:
                    for update in message.updates:
                        self._apply(update)
                    if message.HasField("sync"):
                        self._synced = max(self._synced, message.sync.id)
                    self._ring()
        except self._grpc.RpcError as error:
            broken = self._unreachable(error)
        except Exception as error:  # what no version that we know sends
            broken = LabError(
                f"labgrid's coordinator at {self.address} sent what is not understood: {error}"
            )
        finally:
            self._outgoing.put(None)
            with self._changed:
                self._broken = broken
                self._ring()

    def _apply(self, update: Any) -> None:
        if update.HasField("place"):
            self._places[update.place.name] = Place.read(update.place)
        elif update.HasField("del_place"):
            self._places.pop(update.del_place, None)
        elif update.HasField("resource"):
            one = Resource.read(update.resource)
            self._resources[one.exporter, one.group, one.name] = one
        elif update.HasField("del_resource"):
            path = update.del_resource
            key = path.exporter_name, path.group_name, path.resource_name
            self._resources.pop(key, None)

    def _ring(self) -> None:
        self._changed.notify_all()
        if not self._closed:
            os.eventfd_write(self._bell, 1)

    def _silent(self, seconds: float) -> LabError:
        return LabError(
            f"labgrid's coordinator at {self.address} did not answer within {seconds:g} s",
            mend=f"does `labgrid-client -x {self.address} places` answer?",
        )

    def _unreachable(self, error: Any) -> LabError:
        code = self._grpc.StatusCode
        if error.code() == code.UNIMPLEMENTED:
            return LabError(
                f"what listens at {self.address} is no coordinator of labgrid's: {error.details()}",
                mend="labgrid 25.0 or later is needed: before, it did not speak gRPC",
            )
        return LabError(
            f"labgrid's coordinator at {self.address} cannot be reached: {error.details()}",
            mend='does labgrid-coordinator run there? boards.toml says where: [lab] labgrid = "…"',
        )
