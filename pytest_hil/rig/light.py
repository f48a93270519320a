"""A light board: the outside of a board, and behind it this host's own shell on a pty.

It boots in some milliseconds and takes a megabyte or two, so there can be many. It is no emulation:
its commands run on this host, as this user, in a temporary directory (for root, it is their /tmp).
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import threading
from pathlib import Path

from pytest_hil import process
from pytest_hil.config import host_arch
from pytest_hil.errors import ToolMissing
from pytest_hil.process import Process
from pytest_hil.rig.board import LOGIN, PASSWORD, Place, RigBoard

_MARK = "HIL_RIG_MACHINE"
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

# Whatever signals our starter has us ignore, its Ctrl-C works.
_FRESH = ("env", "--default-signal", "setsid", "--ctty")

# A /tmp of its own, where the kernel lets us: what a power cut leaves there goes with the board.
_OWN_TMP = ("unshare", "--mount", "--propagation", "private")
_ENTER_TMP = 'mount -o bind "$0" /tmp && cd /tmp && export HOME=/tmp TMPDIR=/tmp; exec "$@"'

# Its firmware's and its kernel's words, then what getty and login do.
_GETTY = r"""
name=$1 password=$2 first=$3
shift 3
if [ "$first" ]; then
    echo "$name: power on, memory test passed"
    printf '[    0.000000] Booting the shell of %s on physical CPU 0x0\n' "$(uname -r)"
    echo '[    0.004217] Serial: console [ttyS0] enabled'
    echo '[    0.011904] Run /sbin/init as init process'
    echo
    echo "Welcome to $name"
fi
stty sane -echo
while :; do
    stty echo
    printf '\n%s login: ' "$name"
    read -r user || exit
    [ "$user" ] || continue
    stty -echo
    printf 'Password: '
    read -r typed || exit
    stty echo
    echo
    [ "$user" = root ] && [ "$typed" = "$password" ] && break
    echo 'Login incorrect'
done
export USER=root LOGNAME=root
exec "$@"
"""


class LightBoard(RigBoard):
    """Login as root on a pty."""

    kind = "light"
    features = ("rig",)
    boot = (LOGIN,)

    def __init__(self, place: Place) -> None:
        super().__init__(place)
        self.arch = host_arch()
        login: dict[str, object] = {
            "driver": "login",
            "user": "root",
            "password": {"env": "HIL_RIG_PASSWORD"},
        }
        self.boot = (login,)
        self._shell = _shell()
        self._own_tmp = process.run([*_OWN_TMP, "true"], check=False).returncode == 0
        self._home = place.directory / "home"
        self._leader: Process | None = None
        self._token = ""

    def _start(self) -> None:
        # Nothing of the last time: its disk is memory.
        shutil.rmtree(self._home, ignore_errors=True)
        self._home.mkdir()
        self._token = secrets.token_hex(8)
        self._session(self._token, first=True)

    def _session(self, token: str, *, first: bool) -> None:
        """One getty, and the shell that it becomes."""
        master, slave = os.openpty()
        try:
            leader = process.start(
                [*_FRESH, *self._in_tmp(), *_getty(self._shell, self.name, first=first)],
                stdin=slave,
                stdout=slave,
                stderr=slave,
                cwd=self._home,
                env=self._environment(token),
                # A leader of a process group would have setsid fork, and nobody would end it.
                new_group=False,
            )
        except BaseException:
            os.close(master)
            raise
        finally:
            os.close(slave)
        self._leader = leader
        self.line.attach(master)
        keeper = threading.Thread(
            target=self._keep, args=(leader, token), name=f"hil-rig-{self.name}", daemon=True
        )
        keeper.start()

    def _in_tmp(self) -> list[str]:
        if not self._own_tmp:
            return []
        return [*_OWN_TMP, "/bin/sh", "-c", _ENTER_TMP, str(self._home)]

    def _keep(self, leader: Process, token: str) -> None:
        """As init does it: whoever logs out gets a new login prompt."""
        leader.wait()
        with self._lock:
            if self._token != token or self._leader is not leader:
                return
            self.record.add("exit", detail="its shell has ended")
            _kill_all(token, leader.pid)
            with contextlib.suppress(OSError):  # its directory went with the rig
                self._session(token, first=False)

    def _stop(self) -> None:
        leader, self._leader = self._leader, None
        token, self._token = self._token, ""
        if leader is not None:
            leader.end()
            _kill_all(token, leader.pid)

    def close(self) -> None:
        super().close()
        shutil.rmtree(self._home, ignore_errors=True)

    def _environment(self, token: str) -> dict[str, str]:
        home = str(self._home)
        return {
            "PATH": _PATH,
            "HOME": home,
            "TMPDIR": home,
            "TERM": "vt102",
            "LC_ALL": "C.UTF-8",
            "PS1": "# ",
            _MARK: token,
        }


def _shell() -> list[str]:
    """Busybox's shell where there is one, else this host's."""
    try:
        return [process.find("busybox"), "sh"]
    except ToolMissing:
        return ["/bin/sh"]


def _getty(shell: list[str], name: str, *, first: bool) -> list[str]:
    arguments = [name, PASSWORD, "first" if first else ""]
    return [*shell, "-c", _GETTY, "getty", *arguments, *shell, "-i"]


def _kill_all(token: str, session: int) -> None:
    """Kill whatever a machine has started, until there is no more of it."""
    while left := [pid for pid in _pids() if _belongs(pid, token, session)]:
        for pid in left:
            started = process.start_time(pid)
            if started is not None:
                process.kill_pid(pid, started=started)


def _pids() -> list[int]:
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdecimal()]


def _belongs(pid: int, token: str, session: int) -> bool:
    """By its environment, or by its session if it has cleaned that. Zombies do not count."""
    if process.start_time(pid) is None:
        return False
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
        if int(stat[stat.rindex(b")") + 2 :].split()[3]) == session:
            return True
        environment = Path(f"/proc/{pid}/environ").read_bytes()
    except (OSError, ValueError):
        return False
    return f"{_MARK}={token}".encode() in environment.split(b"\0")
