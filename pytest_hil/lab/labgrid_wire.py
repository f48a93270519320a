"""labgrid's coordinator on the wire: its gRPC methods, and their messages by field numbers.

The numbers and types are facts of labgrid 26.0's interface (labgrid/remote/proto,
labgrid-coordinator.proto; the same since gRPC replaced WAMP in 25.0). Only what is used here is
described, anew and at run time, in a pool of its own: labgrid's package is not needed, and where
it is imported in the same process, nothing collides. What is not described is skipped when read.

proto2's rules, which are the same bytes: every field knows whether it was there.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Mapping
from typing import Any

from pytest_hil.errors import HostLacks

SERVICE = "labgrid.Coordinator"
STREAM = "ClientStream"

# Method → what is sent; the answer is of the same name with Response.
METHODS = (
    "AcquirePlace",
    "CancelReservation",
    "CreateReservation",
    "GetPlaces",
    "GetReservations",
    "PollReservation",
    "ReleasePlace",
)

# Message → field → its number and its type: "*" repeated, "NAME:" a map from strings.
_MESSAGES: Mapping[str, Mapping[str, tuple[int, str]]] = {
    "Sync": {"id": (1, "uint64")},
    "StartupDone": {"version": (1, "string"), "name": (2, "string")},
    "Subscribe": {"all_places": (2, "bool"), "all_resources": (3, "bool")},
    "ClientInMessage": {
        "sync": (1, "Sync"),
        "startup": (2, "StartupDone"),
        "subscribe": (3, "Subscribe"),
    },
    "ClientOutMessage": {"sync": (1, "Sync"), "updates": (2, "*UpdateResponse")},
    "UpdateResponse": {
        "resource": (1, "Resource"),
        "del_resource": (2, "Path"),
        "place": (3, "Place"),
        "del_place": (4, "string"),
    },
    "Path": {
        "exporter_name": (1, "string"),
        "group_name": (2, "string"),
        "resource_name": (3, "string"),
    },
    "Resource": {
        "path": (1, "Path"),
        "cls": (2, "string"),
        "params": (3, "map:MapValue"),
        "extra": (4, "map:MapValue"),
        "acquired": (5, "string"),
        "avail": (6, "bool"),
    },
    "MapValue": {
        "bool_value": (1, "bool"),
        "int_value": (2, "int64"),
        "uint_value": (3, "uint64"),
        "float_value": (4, "double"),
        "string_value": (5, "string"),
    },
    "Place": {
        "name": (1, "string"),
        "aliases": (2, "*string"),
        "tags": (4, "map:string"),
        "matches": (5, "*ResourceMatch"),
        "acquired": (6, "string"),
        "acquired_resources": (7, "*string"),
        "reservation": (11, "string"),
    },
    "ResourceMatch": {
        "exporter": (1, "string"),
        "group": (2, "string"),
        "cls": (3, "string"),
        "name": (4, "string"),
        "rename": (5, "string"),
    },
    "Filter": {"filter": (1, "map:string")},
    "Reservation": {
        "owner": (1, "string"),
        "token": (2, "string"),
        "state": (3, "int32"),
        "prio": (4, "double"),
        "filters": (5, "map:Filter"),
        "allocations": (6, "map:string"),
    },
    "AcquirePlaceRequest": {"placename": (1, "string")},
    "AcquirePlaceResponse": {},
    "ReleasePlaceRequest": {"placename": (1, "string"), "fromuser": (2, "string")},
    "ReleasePlaceResponse": {},
    "GetPlacesRequest": {},
    "GetPlacesResponse": {"places": (1, "*Place")},
    "CreateReservationRequest": {"filters": (1, "map:Filter"), "prio": (2, "double")},
    "CreateReservationResponse": {"reservation": (1, "Reservation")},
    "CancelReservationRequest": {"token": (1, "string")},
    "CancelReservationResponse": {},
    "PollReservationRequest": {"token": (1, "string")},
    "PollReservationResponse": {"reservation": (1, "Reservation")},
    "GetReservationsRequest": {},
    "GetReservationsResponse": {"reservations": (1, "*Reservation")},
}

_PACKAGE = "hil.labgrid"


def grpc() -> Any:
    """The module grpc. Raises HostLacks when it is not installed."""
    return _installed("grpc")


def path(method: str) -> str:
    """A method as gRPC names it."""
    return f"/{SERVICE}/{method}"


def value(written: Any) -> object:
    """A MapValue's value; None when it has none."""
    return next((found for _field, found in written.ListFields()), None)


@functools.cache
def message(name: str) -> Any:
    """The class of a message."""
    factory = _installed("google.protobuf.message_factory")
    return factory.GetMessageClass(_pool().FindMessageTypeByName(f"{_PACKAGE}.{name}"))


@functools.cache
def _pool() -> Any:
    descriptions = _installed("google.protobuf.descriptor_pb2")
    pool = _installed("google.protobuf.descriptor_pool").DescriptorPool()
    file = descriptions.FileDescriptorProto(name="hil-labgrid", package=_PACKAGE, syntax="proto2")
    for name, fields in _MESSAGES.items():
        described = file.message_type.add(name=name)
        for field, (number, kind) in fields.items():
            _describe(described, field, number, kind)
    pool.AddSerializedFile(file.SerializeToString())
    return pool


def _describe(described: Any, field: str, number: int, kind: str) -> None:
    repeated = kind.startswith(("*", "map:"))
    one = described.field.add(name=field, number=number, label=3 if repeated else 1)
    if not kind.startswith("map:"):
        _set_type(one, kind.removeprefix("*"))
        return
    # A map is repeated messages of a key and a value (protobuf's encoding, "Maps").
    entry = described.nested_type.add(name="".join(map(str.title, field.split("_"))) + "Entry")
    entry.options.map_entry = True
    _set_type(entry.field.add(name="key", number=1, label=1), "string")
    _set_type(entry.field.add(name="value", number=2, label=1), kind.removeprefix("map:"))
    _set_type(one, f"{described.name}.{entry.name}")


def _set_type(field: Any, kind: str) -> None:
    if kind[0].islower():
        field.type = type(field).Type.Value(f"TYPE_{kind.upper()}")
    else:
        field.type = type(field).TYPE_MESSAGE
        field.type_name = f".{_PACKAGE}.{kind}"


def _installed(module: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise HostLacks(
            f"{module.partition('.')[0]} is not installed, which labgrid's coordinator is spoken "
            f"to with ({error})",
            mend="install it: pip install 'pytest-hil[labgrid]'",
        ) from None
