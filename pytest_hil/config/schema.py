"""boards.toml as a JSON schema: from the checks that read it.

A check that says nothing of itself (:mod:`pytest_hil.config.described`) is asked which kinds of
values it takes: what it refuses for its kind, it refuses with :class:`WrongKind`. So another
package's driver is in the schema with no work of its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pytest_hil.config import board, lab, tables
from pytest_hil.config.described import description
from pytest_hil.config.driver import checks_of, keys
from pytest_hil.config.tables import Check
from pytest_hil.config.usb import BoardUsb
from pytest_hil.config.values import NAME, BadValue, WrongKind

Schema = dict[str, Any]

DRAFT = "http://json-schema.org/draft-07/schema#"
"""What taplo, and so Even Better TOML, understands."""

_PROBES: Mapping[str, object] = {
    "boolean": True,
    "integer": 1,
    "number": 1.5,
    "string": "",
    "array": [],
    "object": {},
}


def of_check(check: Check) -> Schema:
    """What a check takes, or more."""
    said = description(check)
    if said is not None:
        return dict(said)
    kinds = [kind for kind, probe in _PROBES.items() if _takes(check, probe)]
    if len(kinds) in (0, len(_PROBES)):
        return {}
    return {"type": kinds[0] if len(kinds) == 1 else kinds}


def _takes(check: Check, probe: object) -> bool:
    """Whether a value of this kind may be right."""
    try:
        check(probe, Path())
    except WrongKind as wrong:
        return bool(wrong.at)
    except BadValue:
        return True
    except Exception:  # it is another package's: whatever it means by that
        return True
    return True


def table(checks: Mapping[str, Check], *, required: Iterable[str] = ()) -> Schema:
    """A table with these keys and no others."""
    found = {
        "type": "object",
        "properties": {name: of_check(check) for name, check in checks.items()},
        "additionalProperties": False,
    }
    return found | ({"required": sorted(required)} if required else {})


def options(driver: str, *kinds: type) -> Schema:
    """A driver's table: ``kinds`` are the dataclasses of its keys."""
    found = keyed(*kinds)
    found["properties"]["driver"] = {"const": driver}
    return found | {"required": ["driver", *found.get("required", [])]}


def keyed(*kinds: type) -> Schema:
    """The table of the keys that these dataclasses declare."""
    known = [one for kind in kinds for one in keys(kind)]
    found = table(
        {name: check for kind in kinds for name, check in checks_of(kind).items()},
        required=[one.name for one in known if one.required],
    )
    for one in known:
        own = found["properties"][one.name]
        own["description"] = one.help
        if isinstance(one.default, bool | int | float | str) and one.default != "":
            own["default"] = one.default
    return found


def section(drivers: Mapping[str, Schema], kind: str) -> Schema:
    """A table of one of several drivers, or a driver's name if it needs no keys."""
    alone = [name for name, one in drivers.items() if one["required"] == ["driver"]]
    tables = [{"$ref": _defined(kind, name)} for name in drivers]
    return {"oneOf": [*([{"enum": alone}] if alone else []), *tables]}


def _defined(kind: str, name: str) -> str:
    return f"#/definitions/{kind}.{name}"


def document(drivers: Mapping[str, Mapping[str, Schema]]) -> Schema:
    """The whole file. ``drivers``: for "boot", "console", "power" and "shell", each driver's table
    by its name.
    """
    sections = {kind: {"$ref": f"#/definitions/{kind}"} for kind in drivers}
    stages = {"anyOf": [sections["boot"], {"type": "array", "items": sections["boot"]}]}
    parts = {
        **{kind: sections[kind] for kind in ("console", "power", "shell")},
        "reset": sections["power"],
        "boot": stages,
        "usb": keyed(BoardUsb),
    }
    machine, physical = table(tables.TARGET_KEYS), table(board.KEYS)
    physical["properties"] |= parts
    both = {**machine["properties"], **physical["properties"]}
    both["backend"] = {"enum": ["qemu", "board"]}
    machine["properties"]["backend"] = {"const": "qemu"}
    physical["properties"]["backend"] = {"const": "board"}
    anything = {"type": "object", "properties": both, "additionalProperties": False}
    # What is in the group is not looked up: then nothing is missing.
    of_group = {
        **anything,
        "properties": {**both, "group": {"type": "string"}},
        "required": ["group"],
    }
    definitions: Schema = {
        "target": {
            "oneOf": [
                {**machine, "required": ["backend"]},
                {**physical, "required": ["backend", "console"]},
                of_group,
            ]
        },
        "group": anything,
        "image": _image(),
    }
    for kind, each in drivers.items():
        definitions[kind] = section(each, kind)
        definitions |= {f"{kind}.{name}": one for name, one in each.items()}
    return {
        "$schema": DRAFT,
        "title": "boards.toml of pytest-hil",
        "type": "object",
        "properties": {
            **{kind: _named(kind) for kind in ("target", "group", "image")},
            "lab": table(lab.KEYS),
        },
        "additionalProperties": False,
        "definitions": definitions,
    }


def _named(kind: str) -> Schema:
    """Tables ``[kind.NAME]``."""
    return {
        "type": "object",
        "propertyNames": {"pattern": f"^(?:{NAME.pattern})$"},
        "additionalProperties": {"$ref": f"#/definitions/{kind}"},
    }


def _image() -> Schema:
    kinds = {"debian": tables.DEBIAN_KEYS, "files": tables.FILES_KEYS, "url": tables.URL_KEYS}
    found = []
    for kind, checks in kinds.items():
        one = table(checks)
        one["properties"]["kind"] = {"const": kind}
        # It is the default.
        found.append(one if kind == "debian" else {**one, "required": ["kind"]})
    return {"oneOf": found}


__all__ = ["DRAFT", "Schema", "document", "of_check", "options", "section", "table"]
