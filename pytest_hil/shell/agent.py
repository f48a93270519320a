"""Commands and files through the agent in the guest."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from pytest_hil.agent import protocol
from pytest_hil.agent.protocol import Done, Failed
from pytest_hil.console.interruption import Interruption
from pytest_hil.errors import (
    HilError,
    InfrastructureError,
    OutcomeUnknown,
    ProtocolError,
)
from pytest_hil.shell import agent_command, agent_get, agent_put
from pytest_hil.shell.agent_channel import Channel, OnLost
from pytest_hil.shell.agent_command import Follow
from pytest_hil.shell.base import Completed
from pytest_hil.shell.patient_writer import Late


@dataclass(frozen=True, slots=True)
class AgentInfo:
    """Who answered. ``build`` is the hash of the sources that the agent was built from."""

    version: int
    build: str
    arch: str


class AgentShell:
    """A shell through an agent. Safe to use from several threads; owns the socket.

    ``sock`` is a connected stream socket whose other end is the agent's port; the guest may still
    be booting. ``on_lost`` is called once, in the reader's thread, when the channel ends by itself;
    if it returns an error, waiting calls raise that one. ``interruption`` ends them once, and
    leaves the channel as it is.
    """

    def __init__(
        self,
        sock: socket.socket,
        *,
        name: str,
        on_lost: OnLost | None = None,
        interruption: Interruption | None = None,
    ) -> None:
        self.name = name
        self._channel = Channel(sock, name=name, on_lost=on_lost, interruption=interruption)

    # --- the channel ---

    def hello(self, timeout: float) -> AgentInfo:
        """Begin a session, at any time: after boot, after a restore, after an error.

        Raises ChannelLost when the agent does not answer within ``timeout`` seconds,
        ProtocolError when it speaks another version.
        """
        answer = self._channel.hello(timeout)
        return AgentInfo(answer.version, answer.build, answer.arch)

    @property
    def lost(self) -> threading.Event:
        """Set when the channel has ended for good."""
        return self._channel.lost

    @property
    def reason(self) -> HilError | None:
        """Why nothing can be asked at present; None: it can."""
        return self._channel.reason

    def fail(self, error: HilError) -> None:
        """End all waiting calls at once with this error; calls raise until hello() succeeds."""
        self._channel.fail(error)

    def close(self) -> None:
        """End the channel. May be called twice."""
        self._channel.close()

    def __enter__(self) -> AgentShell:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    # --- commands ---

    def run(
        self,
        command: str | Sequence[str],
        *,
        check: bool = True,
        timeout: float | None = 60.0,
        input: str | bytes | None = None,
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        max_output: int = 64 * 2**20,
        follow: Follow | None = None,
    ) -> Completed:
        """See :meth:`pytest_hil.target.Target.run` and :func:`agent_command.run`."""
        return agent_command.run(
            self._channel,
            command,
            check=check,
            timeout=timeout,
            input=input,
            env=env,
            cwd=cwd,
            max_output=max_output,
            follow=follow,
        )

    # --- files ---

    def put(
        self,
        local: str | os.PathLike[str],
        remote: str,
        *,
        mode: int | None = None,
        owner: tuple[int, int] | None = None,
    ) -> None:
        """See :meth:`pytest_hil.target.Target.put` and :func:`agent_put.put`."""
        agent_put.put(self._channel, local, remote, mode=mode, owner=owner)

    def get(self, remote: str, local: str | os.PathLike[str]) -> None:
        """See :meth:`pytest_hil.target.Target.get` and :func:`agent_get.get`."""
        agent_get.get(self._channel, remote, local)

    # --- the machine as a whole ---

    def personalise(
        self,
        *,
        entropy: bytes | None = None,
        time_ns: int | None = None,
        hostname: str | None = None,
        machine_id: str | None = None,
        timeout: float = 10.0,
    ) -> None:
        """Make a clone itself, in one round trip; what is None stays as it is.

        ``entropy``: 32 to 512 fresh random bytes for the kernel. ``time_ns``: since the epoch.
        ``machine_id``: 32 hexadecimal digits. Raises InfrastructureError naming what failed.
        """
        request = partial(
            protocol.personalise,
            entropy=entropy,
            time_ns=time_ns,
            hostname=hostname,
            machine_id=machine_id,
        )
        self._ask("personalise the machine", request, timeout)

    def reseed(self, entropy: bytes, *, timeout: float = 10.0) -> None:
        """Give the kernel 32 to 512 random bytes and have its generator use them at once."""
        self.personalise(entropy=entropy, timeout=timeout)

    def set_clock(self, time_ns: int, *, timeout: float = 10.0) -> None:
        """Set the time of day, in ns since the epoch."""
        self.personalise(time_ns=time_ns, timeout=timeout)

    def set_hostname(self, hostname: str, *, timeout: float = 10.0) -> None:
        self.personalise(hostname=hostname, timeout=timeout)

    def set_machine_id(self, machine_id: str, *, timeout: float = 10.0) -> None:
        self.personalise(machine_id=machine_id, timeout=timeout)

    def sync(self, *, timeout: float = 60.0) -> None:
        """Have the guest write everything to its disks."""
        self._ask("sync", protocol.sync, timeout)

    def power_off(self, *, timeout: float = 60.0) -> None:
        """Sync and switch off at once, with no shutdown of services.

        Returns when the agent said that it goes down, or is gone.
        """
        self._power(reboot=False, timeout=timeout)

    def reboot(self, *, timeout: float = 60.0) -> None:
        """Sync and restart at once; returns like :meth:`power_off`."""
        self._power(reboot=True, timeout=timeout)

    def _power(self, *, reboot: bool, timeout: float) -> None:
        what = "reboot" if reboot else "power off"
        try:
            self._ask(what, partial(protocol.power, reboot=reboot), timeout)
        except OutcomeUnknown:
            if not self.lost.is_set():
                raise

    def _ask(self, what: str, request: Callable[[int], bytes], timeout: float) -> None:
        """Send a request of one frame, which takes its operation's number, and hear Done."""
        deadline = time.monotonic() + timeout
        with self._channel.operation(what) as operation:
            try:
                operation.send(request(operation.number), deadline)
                answer = operation.next(deadline)
            except Late:
                raise OutcomeUnknown(
                    f"{self.name}: {what}: no answer within {timeout:g} s"
                ) from None
        if isinstance(answer, Failed):
            raise InfrastructureError(f"{self.name}: {what}: {answer.text}")
        if not isinstance(answer, Done):
            raise ProtocolError(f"{self.name}: {what}: unexpected {answer}")
