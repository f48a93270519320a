"""How a board is reached through what its place's exporter offers: boards.toml's drivers of it.

``console = {driver = "labgrid"}`` and ``power = {driver = "labgrid"}`` stand for the place's serial
port and power port; what they are is known when the place is ours. The classes and their
parameters are labgrid's (labgrid/resource, labgrid/driver/power).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase

from pytest_hil.config.board import BoardTarget
from pytest_hil.config.driver import Section
from pytest_hil.errors import ConfigError, InfrastructureError, nearest
from pytest_hil.lab.labgrid_places import Place, Resource

DRIVER = "labgrid"
# Which of several is meant.
CHOICE = "resource"

_SERIAL = ("NetworkSerialPort",)
_POWER = ("NetworkPowerPort", "PDUDaemonPort")
_PDUDAEMON_PORT = 16421


def reach(target: BoardTarget, place: Place, resources: Sequence[Resource]) -> BoardTarget:
    """The board with the drivers that lead to what the place has. Raises InfrastructureError,
    and ConfigError.
    """
    changes: dict[str, Section] = {}
    if target.console.driver == DRIVER:
        changes["console"] = _section(target.console, place, resources, _SERIAL, _console)
    for name in ("power", "reset"):
        section = getattr(target, name)
        if section is not None and section.driver == DRIVER:
            changes[name] = _section(section, place, resources, _POWER, _power)
    return replace(target, **changes) if changes else target  # type: ignore[arg-type]


def _section(
    section: Section,
    place: Place,
    resources: Sequence[Resource],
    kinds: Sequence[str],
    make: Callable[[Section, Resource], tuple[str, Mapping[str, object]]],
) -> Section:
    one = _chosen(section, place, resources, kinds)
    if one.extra.get("proxy_required"):
        raise _wrong(
            section,
            f"{one} is reached through SSH to its exporter only, and that is not supported",
            "start labgrid-exporter without --isolated where it can be reached",
        )
    driver, found = make(section, one)
    written = {name: item for name, item in section.written.items() if name != CHOICE}
    both = {**found, **written}
    return replace(section, driver=driver, written=both, text=repr(sorted(both.items())))


def _chosen(
    section: Section, place: Place, resources: Sequence[Resource], kinds: Sequence[str]
) -> Resource:
    """The one resource of these classes, or that which the section names."""
    fitting = {_name(place, one): one for one in resources if one.cls in kinds}
    wanted = section.written.get(CHOICE)
    if wanted is not None:
        if wanted not in fitting:
            raise _wrong(
                section,
                f"the place {place.name} has no {' or '.join(kinds)} {wanted!r}",
                nearest(str(wanted), fitting),
            )
        return fitting[str(wanted)]
    if not fitting:
        has = ", ".join(sorted(map(str, resources))) or "nothing"
        raise _missing(
            section,
            f"the place {place.name} has no {' or '.join(kinds)}; it has {has}",
            f"does its exporter run? `labgrid-client -p {place.name} show`",
        )
    if len(fitting) > 1:
        raise _wrong(
            section,
            f"the place {place.name} has several: {', '.join(sorted(fitting))}",
            f'choose: {{driver = "labgrid", {CHOICE} = "{min(fitting)}"}}',
        )
    return next(iter(fitting.values()))


def _name(place: Place, one: Resource) -> str:
    """What the place calls a resource."""
    for match in place.matches:
        pairs = (
            (one.exporter, match.exporter),
            (one.group, match.group),
            (one.cls, match.cls),
            (one.name, match.name or "*"),
        )
        if all(fnmatchcase(*pair) for pair in pairs):
            return match.rename or one.name
    return one.name


def _console(section: Section, one: Resource) -> tuple[str, Mapping[str, object]]:
    host, port = one.params.get("host"), one.params.get("port")
    if not host or not port:
        raise _missing(
            section,
            f"{one} is exported, and its exporter does not say where it listens",
            "is the adapter plugged in there, and ser2net installed?",
        )
    if ":" in str(host):
        host = f"[{host}]"
    if one.params.get("protocol") == "raw":
        return "tcp", {"address": f"{host}:{port}"}
    return "serial", {
        "port": f"rfc2217://{host}:{port}",
        "baudrate": one.params.get("speed") or 115200,
    }


def _power(section: Section, one: Resource) -> tuple[str, Mapping[str, object]]:
    host, index = str(one.params.get("host", "")), one.params.get("index", 0)
    if one.cls == "PDUDaemonPort":
        at = host if ":" in host else f"{host}:{_PDUDAEMON_PORT}"
        return "pdudaemon", {
            "url": at,
            "hostname": str(one.params.get("pdu", "")),
            "port": str(index),
        }
    model = str(one.params.get("model", ""))
    number = int(str(index)) if str(index).isdecimal() else 0
    if model in ("shelly_gen1", "shelly_gen2"):
        return "shelly", {"url": host, "channel": number}
    if model == "rest":
        url = host.replace("{index}", str(index))
        return "http", {
            **dict.fromkeys(("on_url", "off_url", "read_url"), url),
            **{"method": "PUT", "on_body": "1", "off_body": "0", "read_on": "^1$"},
        }
    if model == "simplerest":
        url = host.replace("{index}", str(index))
        return "http", {
            "on_url": url.replace("{value}", "1"),
            "off_url": url.replace("{value}", "0"),
            "read_url": url.replace("{value}", "").rstrip("/"),
            "read_on": "^1$",
        }
    if model in ("apc", "raritan", "eaton"):
        version = {"version": "1"} if model == "apc" else {}
        return "snmp", {"host": host, "model": model, "outlet": number, **version}
    raise _wrong(
        section,
        f"{one} is a power port of labgrid's model {model!r}, and there is no driver for it",
        "write the board's own power = {driver = …}: `pytest-hil boards drivers power` has all",
    )


def _wrong(section: Section, message: str, mend: str) -> ConfigError:
    """What is no fault of the board's."""
    return section.wrong("driver", message, mend=mend)


def _missing(section: Section, message: str, mend: str) -> InfrastructureError:
    return InfrastructureError(f"{section.where}: {message}", mend=mend)
