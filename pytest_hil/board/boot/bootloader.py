"""Commands at a bootloader's prompt: what U-Boot and barebox have in common, and UEFI's shell."""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import ClassVar

from pytest_hil.board.boot.download import receiver
from pytest_hil.board.boot.stage import Refused, Way
from pytest_hil.config import values
from pytest_hil.config.described import described
from pytest_hil.config.driver import Secret, key, secret
from pytest_hil.config.values import BadValue, regex, text, wrong_kind
from pytest_hil.console.session import Console
from pytest_hil.errors import (
    CommandFailed,
    CommandTimeout,
    ExpectTimeout,
    TransferError,
    Unsupported,
)
from pytest_hil.shell.base import Completed
from pytest_hil.shell.xmodem import Protocol, Sender

# Seconds that a command may take to end once it has all that was sent.
_AFTER = 30.0


@described(type="object", additionalProperties={"type": "string"})
def environment(value: object) -> tuple[tuple[str, str], ...]:
    """``{NAME = "value"}``."""
    if not isinstance(value, dict):
        raise wrong_kind(value, 'a table NAME = "value"')
    found = []
    for name, one in value.items():
        if not re.fullmatch(r"[A-Za-z0-9_.#-]+", str(name)):
            raise BadValue(f"{values.shown(name)} is no variable's name", at=f".{name}")
        found.append((str(name), text(one)))
    return tuple(found)


@dataclass(frozen=True, slots=True)
class Dialect:
    """How a bootloader is spoken to."""

    prompt: str
    autoboot: str
    stop: str
    boot: str
    set: str
    """A command with {name} and {value}."""
    get: str
    downloads: Mapping[Protocol, str] = field(default_factory=dict)
    """Commands with {address} that receive a file by a protocol."""
    lines: tuple[str, ...] = ('{command}; echo {one}""{other} $?',)
    """What is typed for a command, and to have its status after a nonce that is in two parts there:
    each line when the prompt is there again."""


@dataclass(frozen=True, slots=True)
class BootloaderOptions:
    """Keys of a ``boot`` table with the driver of a bootloader."""

    prompt: str = key(regex, default="", help="its prompt; the driver knows the usual one")
    autoboot: str = key(regex, default="", help="what it says before it boots by itself")
    stop: str = key(values.script, default="", help="the keys that stop it, such as a space")
    password: Secret | None = key(secret, default=None, help="what it may ask for: {env = …}")
    env: tuple[tuple[str, str], ...] = key(
        environment, default=(), help="variables that are set before it boots"
    )
    boot: str = key(text, default="", help="the command that boots, if not its own: from the net …")


class Bootloader:
    """A stage ``bootloader``; the drivers are its dialects."""

    Options: ClassVar[type] = BootloaderOptions
    state: ClassVar[str] = "bootloader"
    dialect: ClassVar[Dialect]

    def __init__(self, options: BootloaderOptions) -> None:
        self._options = options
        self._prompt = options.prompt or self.dialect.prompt
        self._autoboot = options.autoboot or self.dialect.autoboot
        self._stop = options.stop or self.dialect.stop

    @property
    def passable(self) -> bool:
        """It boots by itself, unless there is something to be set before."""
        return not self._options.env and not self._options.boot

    @property
    def signs(self) -> tuple[str, ...]:
        """What is only said on the way here: whoever was further is not any more."""
        return (self._autoboot,)

    def enter(self, way: Way) -> None:
        patterns = [self._prompt, self._autoboot, r"[Pp]assword: ?\Z"]
        while way.left:
            match way.expect_or_none(patterns, way.left):
                case 0:
                    break
                case 1:
                    way.send(self._stop)
                case 2:
                    if self._options.password is None:
                        raise Refused("it asks for a password", mend="add password = {env = …}")
                    way.sendline(self._options.password.reveal())
                case _:
                    raise Refused(
                        f"neither {self._autoboot!r} nor {self._prompt!r} came within "
                        f"{way.timeout:g} s"
                    )
        else:
            raise Refused(f"{self._prompt!r} did not come within {way.timeout:g} s")
        for name, value in self._options.env:
            self.command(way.console, self.dialect.set.format(name=name, value=value), way.left)

    def leave(self, way: Way) -> None:
        way.sendline(self._options.boot or self.dialect.boot)

    def here(self, way: Way) -> bool:
        way.send(b"\x03")
        return way.expect_or_none([self._prompt], 1.0) is not None

    def command(
        self,
        console: Console,
        line: str,
        timeout: float,
        *,
        meanwhile: Callable[[], object] = bool,
    ) -> Completed:
        """Run a command at the prompt. ``meanwhile`` is done when it was sent.

        Raises CommandFailed, CommandTimeout.
        """
        nonce = secrets.token_hex(4)
        # In two parts, so that the echo of the command is not its answer.
        parts = {"command": line, "one": nonce[:4], "other": nonce[4:]}
        lines = [each.format_map(parts) for each in self.dialect.lines]
        at = next(at for at, each in enumerate(self.dialect.lines) if "{command}" in each)
        began = time.monotonic()
        start = console.mark()
        try:
            for number, each in enumerate(lines):
                if number:
                    console.expect(self._prompt, timeout=timeout)
                console.send(f"{each}\r")
                if number == at:
                    meanwhile()
            found = console.expect(rf"{nonce} (0x[0-9A-Fa-f]+|\d+)", timeout=timeout)
            console.expect(self._prompt, timeout=timeout)
        except ExpectTimeout:
            console.send(b"\x03")
            said = console.since(start)
            raise CommandTimeout(line, timeout=timeout, stdout=said) from None
        code = int(found.group(1) or "0", 0)
        after = lines[at + 1] if at + 1 < len(lines) else nonce
        said = re.sub(self._prompt, "", _between(console.since(start), lines[at], after))
        if code:
            raise CommandFailed(line, exit_code=code, stdout=said)
        return Completed(line, said, "", code, time.monotonic() - began)


class Commands:
    """A bootloader's prompt, for tests: ``hil.bootloader``."""

    def __init__(self, stage: Bootloader, console: Console) -> None:
        self._stage = stage
        self._console = console
        self.env = Environment(self)

    def run(self, command: str, *, timeout: float = 30.0) -> Completed:
        """Run a command at its prompt. Raises CommandFailed, CommandTimeout."""
        return self._stage.command(self._console, command, timeout)

    def send(
        self,
        path: str | PathLike[str],
        *,
        address: int | None = None,
        protocol: Protocol = "ymodem",
    ) -> Completed:
        """Put a file into the board's memory over its console, at an address (None: where the
        bootloader puts what it loads). ``protocol``: "ymodem", "xmodem" (its blocks of 128 bytes
        fill up the last one), "xmodem-1k". What the bootloader said is returned.

        Raises TransferError, CommandFailed, CommandTimeout; Unsupported where the bootloader has no
        command for that.
        """
        command = self.dialect.downloads.get(protocol)
        if command is None:
            raise Unsupported(self._console.name, f"file by {protocol} at its bootloader")
        try:
            data = Path(path).read_bytes()
        except OSError as error:
            raise TransferError(f"send {path} to {self._console.name}: {error}") from error
        line = command.format(address="" if address is None else f"{address:#x}").strip()
        sender = Sender(data, name=Path(path).name, protocol=protocol)
        with receiver(self._console) as send:
            return self._stage.command(self._console, line, _AFTER, meanwhile=lambda: send(sender))

    @property
    def dialect(self) -> Dialect:
        return self._stage.dialect


@dataclass(frozen=True, slots=True)
class Environment:
    """A bootloader's variables: ``hil.bootloader.env["bootargs"] = "quiet"``."""

    _commands: Commands = field(repr=False)

    def __getitem__(self, name: str) -> str:
        try:
            said = self._commands.run(self._commands.dialect.get.format(name=name)).stdout
        except CommandFailed:
            raise KeyError(name) from None
        # UEFI's shell says in a sentence that there is none, and that all is well.
        found = re.search(rf"^\s*{re.escape(name)} ?= ?(.*)", said, re.MULTILINE | re.DOTALL)
        if found is None:
            raise KeyError(name)
        return found[1].strip()

    def __setitem__(self, name: str, value: str) -> None:
        self._commands.run(self._commands.dialect.set.format(name=name, value=value))

    def __contains__(self, name: str) -> bool:
        try:
            self[name]
        except KeyError:
            return False
        return True


def _between(said: str, echo: str, mark: str) -> str:
    """What a command said: after its own echo, before its mark."""
    text = said.replace("\r", "")
    start = text.find(echo)
    if start >= 0:
        text = text[start + len(echo) :].lstrip("\n")
    end = text.find(mark)
    return text[:end] if end >= 0 else text
