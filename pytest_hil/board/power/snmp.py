"""PDUs by SNMP: v1, v2c (a community) and v3 (a user)."""

from __future__ import annotations

import importlib
import ipaddress
import re
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from pytest_hil.board.power.switch import PowerError
from pytest_hil.config import values
from pytest_hil.config.described import described, description
from pytest_hil.config.driver import Secret, address, count, key, one_of, seconds, secret
from pytest_hil.config.values import BadValue, shown, wrong_kind
from pytest_hil.errors import ConfigError, HostLacks, InfrastructureError, visible

_PLACE = 'power {driver = "snmp"}'

# Seconds between two looks at an outlet that has not switched yet: SNMP tells no one of it.
_LOOK = 0.2

_OID = re.compile(r"\.?[012](\.([0-9]{1,10}|\{outlet\}|\{unit\})){2,127}")


@dataclass(frozen=True, slots=True)
class Model:
    """How a kind of PDU is switched and read. ``{outlet}`` and ``{unit}`` in OIDs are replaced."""

    on: tuple[str, int | str]
    off: tuple[str, int | str]
    state: str | None
    # Values of the state. All others (unknown, pending …) are neither on nor off.
    is_on: frozenset[str]
    is_off: frozenset[str]
    # The number of its only or first unit; None: it has no units.
    unit: int | None = None


# PowerNet-MIB, sPDUOutletControlTable, sPDUOutletCtl: outletOn(1), outletOff(2), outletReboot(3),
# outletUnknown(4), …
_APC = "1.3.6.1.4.1.318.1.1.4.4.2.1.3.{outlet}"
# PowerNet-MIB, rPDU2OutletSwitchedControlCommand: immediateOn(1), immediateOff(2), …
_APC2_CONTROL = "1.3.6.1.4.1.318.1.1.26.9.2.4.1.5.{outlet}"
# PowerNet-MIB, rPDU2OutletSwitchedStatusState: off(1), on(2). Indeed the other way round.
_APC2_STATUS = "1.3.6.1.4.1.318.1.1.26.9.2.3.1.5.{outlet}"
# PDU2-MIB, outletSwitchControlTable (pduId, outletId), switchingOperation: off(0), on(1), cycle(2)
_RARITAN_CONTROL = "1.3.6.1.4.1.13742.6.4.1.2.1.2.{unit}.{outlet}"
# PDU2-MIB, outletSwitchingState, a SensorStateEnumeration: on(7), off(8), unavailable(-1), …
_RARITAN_STATUS = "1.3.6.1.4.1.13742.6.4.1.2.1.3.{unit}.{outlet}"
# EATON-EPDU-MIB, outletControlTable (strappingIndex, outletIndex), outletControlStatus: off(0),
# on(1), pendingOff(2), pendingOn(3). What is pending has not happened.
_EATON_STATUS = "1.3.6.1.4.1.534.6.6.7.6.6.1.2.{unit}.{outlet}"
# EATON-EPDU-MIB, outletControlOffCmd and outletControlOnCmd: in so many seconds, 0 at once.
_EATON_OFF = "1.3.6.1.4.1.534.6.6.7.6.6.1.3.{unit}.{outlet}"
_EATON_ON = "1.3.6.1.4.1.534.6.6.7.6.6.1.4.{unit}.{outlet}"


def _states(*numbers: int) -> frozenset[str]:
    return frozenset(map(str, numbers))


MODELS: Mapping[str, Model] = {
    "apc": Model((_APC, 1), (_APC, 2), _APC, _states(1), _states(2)),
    "apc-rpdu2": Model(
        (_APC2_CONTROL, 1), (_APC2_CONTROL, 2), _APC2_STATUS, _states(2), _states(1)
    ),
    "raritan": Model(
        (_RARITAN_CONTROL, 1), (_RARITAN_CONTROL, 0), _RARITAN_STATUS, _states(7), _states(8), 1
    ),
    "eaton": Model((_EATON_ON, 0), (_EATON_OFF, 0), _EATON_STATUS, _states(1, 2), _states(0, 3), 0),
}


@dataclass(frozen=True, slots=True)
class Community:
    """A community's name as it stands in the file: many devices have a well-known one."""

    _name: str = field(repr=False)

    def reveal(self) -> str:
        return self._name


@described(anyOf=[{"type": "string"}, description(secret)])
def community(value: object) -> Community | Secret:
    """A check for a community: text, or where it is."""
    if isinstance(value, Community):
        return value
    return Community(values.text(value)) if isinstance(value, str) else secret(value)


def agent(value: object) -> tuple[str, int]:
    """A check for an agent's address: a host, or host:port; the port is 161."""
    found = values.text(value)
    try:
        return str(ipaddress.ip_address(found.strip("[]"))), 161
    except ValueError:
        pass
    if re.fullmatch(r"[A-Za-z0-9_.-]+", found):
        return found, 161
    return address(found)


def object_name(value: object) -> str:
    """A check for an OID in numbers, with {outlet} and {unit} in it."""
    found = values.text(value)
    if not _OID.fullmatch(found):
        raise BadValue(f"{shown(found)} is no OID", 'write "1.3.6.1.2.1.105.1.1.1.3.1.{outlet}"')
    return found.removeprefix(".")


def setting(value: object) -> int | str:
    """A check for a value of an OID: an INTEGER, or an OCTET STRING."""
    if type(value) is int:
        if not -(2**31) <= value < 2**31:
            raise BadValue(f"{shown(value)} is no INTEGER", "it has 32 bits")
        return value
    if not isinstance(value, str):
        raise wrong_kind(value, "a whole number or a string")
    return values.text(value)


@dataclass(frozen=True, slots=True)
class SnmpOptions:
    """Keys of a ``power`` table with ``driver = "snmp"``."""

    host: tuple[str, int] = key(agent, help='the PDU\'s address: "192.168.1.5", "pdu.lab:1161"')
    model: str = key(
        one_of("generic", *MODELS),
        help="apc: Switched Rack PDU of the first generation (AP79xx) and MasterSwitch; apc-rpdu2: "
        "of the second (AP89xx); raritan: PX2, PX3; eaton: ePDU G3; generic: what oid says",
    )
    outlet: int = key(count(1, 1000), default=1, help="the number of the outlet, from 1")
    unit: int | None = key(
        count(0, 1000),
        default=None,
        help="the number of the PDU in a chain: raritan counts from 1, eaton from 0",
    )
    oid: str | None = key(
        object_name,
        default=None,
        help="of model generic: what is set; {outlet} and {unit} in it are replaced",
    )
    off_oid: str | None = key(
        object_name, default=None, help="what is set for off, if it is another"
    )
    on_value: int | str = key(setting, default=1, help="of model generic: what oid is set to")
    off_value: int | str = key(setting, default=0, help="the same for off")
    read_oid: str | None = key(
        object_name,
        default=None,
        help="of model generic: what says the state; often the same as oid",
    )
    read_on: int | str | None = key(
        setting, default=None, help="the value of read_oid when it is on, if it is not on_value"
    )
    read_off: int | str | None = key(
        setting, default=None, help="the value of read_oid when it is off, if it is not off_value"
    )
    version: str = key(one_of("1", "2c", "3"), default="2c", help="of SNMP")
    # Well known: PDUs have it from their factory.
    community: Community | Secret = key(
        community,
        default=Community("private"),
        help='with versions 1 and 2c, one that may write: "private", or {env = "NAME"}',
    )
    user: str = key(values.text, default="", help="with version 3")
    auth: str = key(
        one_of("md5", "sha", "sha224", "sha256", "sha384", "sha512"),
        default="sha",
        help="how auth_password is used",
    )
    auth_password: Secret | None = key(
        secret, default=None, help='where it is: {env = "PDU_AUTH"}; without it nothing is signed'
    )
    priv: str = key(
        one_of("des", "3des", "aes", "aes192", "aes256"),
        default="aes",
        help="how priv_password is used (aes: AES-128)",
    )
    priv_password: Secret | None = key(
        secret, default=None, help='where it is: {env = "PDU_PRIV"}; without it nothing is hidden'
    )
    timeout: float = key(seconds, default=5.0, help="of a request with its repetitions, in seconds")
    settle: float = key(
        seconds,
        default=5.0,
        help="how long an outlet may take to switch before it counts as stuck, in seconds",
    )


class SnmpPower:
    """One outlet of a PDU."""

    Options: ClassVar[type] = SnmpOptions

    def __init__(self, options: SnmpOptions) -> None:
        """Raises ConfigError when keys do not fit together."""
        self._options = options
        self._model = _chosen(options)
        _check_user(options)
        self._where = f"the PDU at {options.host[0]}:{options.host[1]}"

    def on(self) -> None:
        """Until it says so, where it can. Raises PowerError; InfrastructureError for what no
        repetition mends (a wrong user, an outlet that is not there, no pysnmp).
        """
        self._run(lambda agent: self._switch(agent, self._model.on, wanted=True))

    def off(self) -> None:
        """Raises as :meth:`on`."""
        self._run(lambda agent: self._switch(agent, self._model.off, wanted=False))

    def read(self) -> bool | None:
        """What the PDU says of the outlet; None where it cannot. Raises as :meth:`on`."""
        if self._model.state is None:
            return None
        value = self._run(lambda agent: agent.get(self._filled(self._model.state or "")))
        state = self._meant(value)
        if state is None:
            on, off = (", ".join(sorted(each)) for each in (self._model.is_on, self._model.is_off))
            raise PowerError(
                f"{self._where} says {visible(value)[:80]!r} of outlet {self._options.outlet}: "
                f"neither on ({on}) nor off ({off})",
                mend="does it switch just now, and is the model right?",
            )
        return state

    def close(self) -> None:
        """Nothing is kept open."""

    async def _switch(self, agent: _Agent, what: tuple[str, int | str], *, wanted: bool) -> None:
        name, value = what
        await agent.set(self._filled(name), value)
        if self._model.state is None:
            return
        import asyncio

        # The reply comes before the relay has moved; a power cycle's time counts from then on.
        until = time.monotonic() + self._options.settle
        state = self._filled(self._model.state)
        while self._meant(await agent.get(state)) is not wanted and time.monotonic() < until:
            await asyncio.sleep(_LOOK)

    def _meant(self, value: str) -> bool | None:
        if value in self._model.is_on:
            return True
        return False if value in self._model.is_off else None

    def _filled(self, name: str) -> str:
        options = self._options
        unit = self._model.unit if options.unit is None else options.unit
        return name.replace("{outlet}", str(options.outlet)).replace("{unit}", str(unit))

    def _run(self, act: Callable[[_Agent], Awaitable[Any]]) -> Any:
        """In a thread of its own: this one may have an event loop that runs."""
        import asyncio
        from concurrent.futures import ThreadPoolExecutor

        _pysnmp("hlapi.v3arch.asyncio")

        async def talk() -> Any:
            async with _Agent(self._options, self._where) as agent:
                return await act(agent)

        with ThreadPoolExecutor(1, "hil-snmp-power") as thread:
            return thread.submit(asyncio.run, talk()).result()


class _Agent:
    """A conversation with a PDU's agent."""

    def __init__(self, options: SnmpOptions, where: str) -> None:
        self._options = options
        self._where = where

    async def __aenter__(self) -> _Agent:
        failure = _pysnmp("error").PySnmpError
        api = _pysnmp("hlapi.v3arch.asyncio")

        host, port = self._options.host
        kind = api.Udp6TransportTarget if ":" in host else api.UdpTransportTarget
        # A datagram may be lost; to be told "on" twice does no harm.
        repetitions = 2
        try:
            self._target = await kind.create(
                (host, port),
                timeout=self._options.timeout / (repetitions + 1),
                retries=repetitions,
            )
        except (failure, OSError) as error:
            raise PowerError(f"{self._where}: there is no such host") from error
        self._proof = _proof(self._options)
        self._engine = api.SnmpEngine()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._engine.close_dispatcher()

    async def get(self, name: str) -> str:
        """A value as text. Raises as :meth:`SnmpPower.on`."""
        api = _pysnmp("hlapi.v3arch.asyncio")

        value = await self._ask(api.get_cmd, name)
        return bytes(value).decode(errors="replace") if _is_text(value) else value.prettyPrint()

    async def set(self, name: str, value: int | str) -> None:
        """Raises as :meth:`SnmpPower.on`."""
        api = _pysnmp("hlapi.v3arch.asyncio")

        typed = api.Integer32(value) if isinstance(value, int) else api.OctetString(value)
        await self._ask(api.set_cmd, name, typed)

    async def _ask(self, command: Callable[..., Any], name: str, *value: object) -> Any:
        import asyncio

        failure = _pysnmp("error").PySnmpError
        api = _pysnmp("hlapi.v3arch.asyncio")

        bound = api.ObjectType(api.ObjectIdentity(name), *value)
        try:
            # Its own clock goes by half seconds.
            async with asyncio.timeout(self._options.timeout + 0.5):
                indication, status, _, bindings = await command(
                    self._engine,
                    self._proof,
                    self._target,
                    api.ContextData(),
                    bound,
                    lookupMib=False,
                )
        except TimeoutError as error:
            raise self._silent() from error
        except (failure, OSError) as error:
            raise PowerError(f"{self._where}: {type(error).__name__}: {error}") from error
        if indication:
            raise self._indicated(indication)
        if status:
            raise self._refused(name, status.prettyPrint())
        found = bindings[0][1] if bindings else None
        kind = type(found).__name__
        if kind in ("NoSuchObject", "NoSuchInstance", "EndOfMibView", "NoneType", "Null"):
            raise InfrastructureError(
                f"{self._where} has no {name}",
                mend="are the model, the outlet and the unit right, and may this user see it?",
            )
        return found

    def _silent(self) -> PowerError:
        hint = "" if self._options.version == "3" else "; a wrong community too gets no answer"
        return PowerError(
            f"{self._where} did not answer within {self._options.timeout:g} s",
            mend=f"is SNMP v{self._options.version} enabled in it, and from this host{hint}?",
        )

    def _indicated(self, indication: Any) -> InfrastructureError:
        errind = _pysnmp("proto.errind")

        if isinstance(indication, errind.RequestTimedOut):
            return self._silent()
        said = f"{self._where}: {visible(str(indication))}"
        # Of a user, a password or a level of security that the agent does not take.
        lasting = (
            errind.UnknownUserName,
            errind.AuthenticationFailure,
            errind.WrongDigest,
            errind.UnsupportedSecurityLevel,
            errind.UnsupportedAuthProtocol,
            errind.UnsupportedPrivProtocol,
            errind.DecryptionError,
            errind.AuthenticationError,
            errind.EncryptionError,
        )
        if isinstance(indication, lasting):
            return InfrastructureError(
                said, mend="are user, auth, priv and their passwords as in the PDU?"
            )
        return PowerError(said)

    def _refused(self, name: str, status: str) -> InfrastructureError:
        said = f"{self._where} refused {name}: {status}"
        # Of RFC 3416; the other ones may be gone the next time.
        if status in ("genErr", "resourceUnavailable", "commitFailed", "undoFailed", "tooBig"):
            return PowerError(said)
        mends = {
            "noSuchName": "are the model, the outlet and the unit right, and may this community "
            "write?",
            "wrongType": "is its value a number or a text?",
        }
        return InfrastructureError(
            said, mend=mends.get(status, "may this user or community write?")
        )


def _pysnmp(part: str) -> Any:
    try:
        return importlib.import_module(f"pysnmp.{part}")
    except ImportError:
        raise HostLacks(
            "pysnmp is not installed", mend="install it: pip install 'pytest-hil[snmp]'"
        ) from None


def _is_text(value: Any) -> bool:
    api = _pysnmp("hlapi.v3arch.asyncio")

    return isinstance(value, api.OctetString) and not isinstance(value, api.IpAddress)


def _proof(options: SnmpOptions) -> Any:
    """Who we are. Raises ConfigError (a password is not there, or too short)."""
    api = _pysnmp("hlapi.v3arch.asyncio")

    if options.version != "3":
        model = {"1": 0, "2c": 1}[options.version]
        return api.CommunityData(options.community.reveal(), mpModel=model)
    auth = _passphrase("auth_password", options.auth_password)
    priv = _passphrase("priv_password", options.priv_password)
    if priv is not None:
        try:
            import cryptography  # noqa: F401
        except ImportError:
            raise HostLacks(
                "cryptography is not installed", mend="install it: pip install 'pytest-hil[snmp]'"
            ) from None
    signs = {
        "md5": api.USM_AUTH_HMAC96_MD5,
        "sha": api.USM_AUTH_HMAC96_SHA,
        "sha224": api.USM_AUTH_HMAC128_SHA224,
        "sha256": api.USM_AUTH_HMAC192_SHA256,
        "sha384": api.USM_AUTH_HMAC256_SHA384,
        "sha512": api.USM_AUTH_HMAC384_SHA512,
    }
    hides = {
        "des": api.USM_PRIV_CBC56_DES,
        "3des": api.USM_PRIV_CBC168_3DES,
        "aes": api.USM_PRIV_CFB128_AES,
        "aes192": api.USM_PRIV_CFB192_AES,
        "aes256": api.USM_PRIV_CFB256_AES,
    }
    return api.UsmUserData(
        options.user,
        auth,
        priv,
        authProtocol=signs[options.auth] if auth else api.USM_AUTH_NONE,
        privProtocol=hides[options.priv] if priv else api.USM_PRIV_NONE,
    )


def _passphrase(name: str, where: Secret | None) -> str | None:
    if where is None:
        return None
    found = where.reveal()
    # RFC 3414, 11.2.
    if len(found) < 8:
        raise ConfigError(f"{_PLACE} {name}", "has fewer than 8 characters; SNMP wants 8 or more")
    return found


def _chosen(options: SnmpOptions) -> Model:
    """The model that the keys describe. Raises ConfigError."""
    generic = ("oid", "off_oid", "read_oid", "read_on", "read_off")
    if options.model != "generic":
        model = MODELS[options.model]
        for name in generic:
            if getattr(options, name) is not None:
                raise ConfigError(
                    f"{_PLACE} {name}", f"is not for model {options.model!r}", mend="remove it"
                )
        if options.unit is not None and model.unit is None:
            raise ConfigError(
                f"{_PLACE} unit", f"model {options.model!r} has no units", mend="remove it"
            )
        return model
    if options.oid is None:
        raise ConfigError(
            f"{_PLACE} oid", "missing", mend='model "generic" wants to know what is set'
        )
    on = options.on_value if options.read_on is None else options.read_on
    off = options.off_value if options.read_off is None else options.read_off
    if options.on_value == options.off_value and options.off_oid in (None, options.oid):
        raise ConfigError(f"{_PLACE} off_value", "on and off are set alike")
    if options.read_oid is not None and str(on) == str(off):
        raise ConfigError(f"{_PLACE} read_on", "on and off have the same value")
    return Model(
        (options.oid, options.on_value),
        (options.off_oid or options.oid, options.off_value),
        options.read_oid,
        frozenset({str(on)}),
        frozenset({str(off)}),
        0,
    )


def _check_user(options: SnmpOptions) -> None:
    if options.version == "3" and not options.user:
        raise ConfigError(f"{_PLACE} user", "missing", mend="version 3 wants a user")
    if options.version != "3" and (options.user or options.auth_password or options.priv_password):
        raise ConfigError(
            f"{_PLACE} version", f"{options.version} knows no users", mend='write version = "3"'
        )
    if options.priv_password and not options.auth_password:
        raise ConfigError(
            f"{_PLACE} auth_password", "missing", mend="priv_password wants auth_password too"
        )
