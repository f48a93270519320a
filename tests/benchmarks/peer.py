"""The peer: labgrid's QEMUDriver and ShellDriver, in an environment and a process of their own.

labgrid brings a fork of pyserial that replaces the package ``serial``, so it must never be
installed beside ours. Its environment is made once, in the cache.
"""

from __future__ import annotations

import json
import os
import select
import shlex
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pytest_hil import process
from pytest_hil.cache import Cache
from pytest_hil.errors import InfrastructureError, ProtocolError
from pytest_hil.qemu import cmdline
from pytest_hil.qemu.hardware import Hardware, Memory, Wiring

REQUIREMENT = "labgrid==26.0.1"
_PROGRAM = Path(__file__).with_name("labgrid_peer.py")
_PATIENCE = 180.0

# QEMUDriver gives these itself, from its own settings or for its own channels.
_ITS_OWN = frozenset(
    {"-name", "-display", "-machine", "-cpu", "-m", "-kernel", "-append"}
    | {"-chardev", "-mon", "-serial"}
)


class Peer:
    """The peer's process. A context manager; its answers are seconds, measured over there."""

    def __init__(
        self, hardware: Hardware, cache: Cache, scratch: Path, *, tell: Callable[[str], None]
    ) -> None:
        python = environment(cache, tell) / "bin" / "python"
        settings = scratch / "labgrid.yaml"
        settings.write_text(json.dumps(configuration(hardware, _launcher(hardware, scratch))))
        self._process = process.start(
            [str(python), str(_PROGRAM), str(settings)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def fresh(self) -> float:
        """From nothing to the first answered command; that machine is gone again."""
        return self._ask("fresh")

    def open(self) -> float:
        """The same, and the machine stays, for :meth:`run`."""
        return self._ask("open")

    def run(self) -> float:
        """One command on the console of the machine that is open."""
        return self._ask("run")

    def close_machine(self) -> None:
        self._ask("close")

    def _ask(self, what: str) -> float:
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        try:
            stdin.write(json.dumps({"do": what}).encode() + b"\n")
            stdin.flush()
        except BrokenPipeError:
            raise self._gone(what) from None
        answer = self._line(stdout.fileno(), what)
        if "error" in answer:
            raise InfrastructureError(f"the peer could not {what}: {answer['error']}")
        return float(answer["seconds"])

    def _line(self, fd: int, what: str) -> dict[str, Any]:
        deadline = time.monotonic() + _PATIENCE
        data = b""
        while not data.endswith(b"\n"):
            left = max(0.0, deadline - time.monotonic())
            if not select.select([fd], [], [], left)[0]:
                raise InfrastructureError(f"the peer did not {what} within {_PATIENCE:g} s")
            chunk = os.read(fd, 65536)
            if not chunk:
                raise self._gone(what)
            data += chunk
        found = json.loads(data)
        if not isinstance(found, dict):
            raise ProtocolError(f"the peer answered {data!r}")
        return found

    def _gone(self, what: str) -> InfrastructureError:
        return InfrastructureError(f"the peer ended while it should {what}; see its words above")

    def __enter__(self) -> Peer:
        return self

    def __exit__(self, *exc: object) -> None:
        # The end of its input ends it and its machine.
        if self._process.stdin is not None:
            self._process.stdin.close()
        self._process.wait(10)
        self._process.end()


def environment(cache: Cache, tell: Callable[[str], None], *requirements: str) -> Path:
    """The directory of a virtual environment that has a peer (none given: labgrid).

    Raises ProcessFailed.
    """
    wanted = requirements or (REQUIREMENT,)

    def build(directory: Path) -> None:
        tell(f"installing {' '.join(wanted)} into an environment of its own")
        process.run([sys.executable, "-m", "venv", str(directory)], timeout=300)
        pip = [str(directory / "bin" / "python"), "-m", "pip", "--disable-pip-version-check"]
        process.run([*pip, "install", "--quiet", *wanted], timeout=600)

    key = f"{'-'.join(wanted).replace('==', '-')}-{sys.implementation.cache_tag}"
    made = cache.make("benchmark", key, build, progress=tell)
    if not (made / "bin" / "python").exists():
        # The Python that it was made with is gone.
        made = cache.replace("benchmark", key, build, progress=tell)
    return made


def configuration(hardware: Hardware, launcher: Path) -> dict[str, Any]:
    """labgrid's environment for the very machine that ours boots: devices, kernel, memory.

    The guest's console has a root shell and no login. All other settings are the drivers' own.
    """
    given = cmdline.argv(hardware, Wiring(console=0, monitor=0, agent=0, memory=Memory()))
    qemu = {
        "qemu_bin": "qemu",
        "machine": _value(given, "-machine"),
        "cpu": _value(given, "-cpu"),
        "memory": _value(given, "-m"),
        "kernel": "kernel",
        "boot_args": hardware.append,
        "extra_args": shlex.join(extra_arguments(given)),
    }
    shell = {"prompt": "/ # ", "login_prompt": "login: ", "username": "root"}
    return {
        "targets": {"main": {"drivers": [{"QEMUDriver": qemu}, {"ShellDriver": shell}]}},
        "images": {"kernel": str(hardware.kernel)},
        "tools": {"qemu": str(launcher)},
    }


def extra_arguments(argv: list[str]) -> list[str]:
    """Of our command line, what labgrid does not say by itself. The agent's port has nobody."""
    rest = iter(argv[1:])
    out = []
    for option in rest:
        if option in ("-nodefaults", "-no-user-config"):
            out.append(option)
            continue
        value = next(rest)
        if option not in _ITS_OWN:
            out += [option, value]
    return [*out, "-chardev", "null,id=agent"]


def _value(argv: list[str], option: str) -> str:
    return argv[argv.index(option) + 1]


def _launcher(hardware: Hardware, scratch: Path) -> Path:
    """A QEMU that dies with the peer, as ours die with us, by the same means."""
    path = scratch / "qemu"
    setpriv = process.find("setpriv", package="util-linux")
    command = shlex.join([setpriv, "--pdeathsig", "KILL", "--", str(hardware.binary)])
    path.write_text(f'#!/bin/sh\nexec {command} "$@"\n')
    path.chmod(0o755)
    return path
