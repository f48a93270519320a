"""Every error that pytest-hil raises on purpose.

::

    HilError
    ├── ConfigError                  boards.toml, an option or a marker is wrong: nothing began
    ├── InfrastructureError          our side broke: reported as *error*, never as *failed*
    │   ├── HostLacks                this host lacks something, or this user may not
    │   │   └── ToolMissing          a program that must be installed is not
    │   ├── ProcessFailed            a program that we started ended with an error
    │   ├── ImageError               a guest image could not be made, fetched or read
    │   │   └── ChecksumMismatch     what was fetched is not what was asked for
    │   ├── MachineError             a machine could not be made or kept
    │   │   ├── MachineDied          QEMU ended by itself
    │   │   ├── BootTimeout          the guest never got ready
    │   │   └── NoRoom               the host has no room left for it
    │   │       └── NoMemory         … of memory
    │   ├── TemplateError            a template or snapshot cannot be used
    │   ├── ChannelLost              the way to the target is gone
    │   ├── ProtocolError            the other side spoke nonsense
    │   ├── CoverageError            coverage data that cannot be counted
    │   │   └── ForeignCoverage      … because it is of another build
    │   ├── OutcomeUnknown           a command was sent and its reply was lost
    │   └── BoardRestarted           a board began to boot, and nobody had asked it to
    └── TargetError                  the target did not do what the test wanted: an AssertionError
        ├── Crashed                  its kernel or firmware crashed
        ├── NoCrash                  … did not, where a test wants that
        ├── NotThere                 it is switched off or closed, or a snapshot of it is gone
        ├── CommandFailed            non-zero exit code or a signal
        ├── CommandTimeout           the command ran too long and was killed
        ├── OutputTooLarge           the command printed more than was asked for
        ├── TransferError            a file could not be put or got
        ├── ExpectTimeout            the console did not say it in time
        ├── ConsoleClosed            the console ended before it said it
        ├── AttachFailed             it did not take a USB device, or did not let go of it
        └── Unsupported              this target has no such thing

Constructors take facts; ``__str__`` writes the sentence. Where somebody can mend
it, the sentence ends with how (``mend``).
"""

from __future__ import annotations

import difflib
import shlex
import signal
from collections.abc import Iterable, Sequence


class HilError(Exception):
    """The root. ``mend`` is the sentence that says what to do about it ("" if nothing is known)."""

    def __init__(self, message: str, *, mend: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.mend = mend

    def __str__(self) -> str:
        return f"{self.message}\n  {self.mend}" if self.mend else self.message


# The controls (C0 but newline and tab, DEL, C1), as Unicode's pictures of them where there are, and
# what turns the direction of a line.
_UNSEEN = {
    **{code: 0x2400 + code for code in range(0x20) if chr(code) not in "\n\t"},
    0x7F: 0x2421,
    **dict.fromkeys((*range(0x80, 0xA0), *range(0x202A, 0x202F), *range(0x2066, 0x206A)), 0xFFFD),
}


def visible(text: str) -> str:
    """A target's words for somebody's terminal: what could steer it is shown, not done."""
    return text.translate(_UNSEEN)


def one_line(text: str) -> str:
    """Somebody's words for a place in a line of ours: visible, and without line breaks."""
    return visible(" ".join(text.splitlines()))


def nearest(name: str, known: Iterable[str]) -> str:
    """A sentence that names the nearest right name, or all of them when none is near."""
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1)
    if close:
        return f"did you mean {close[0]!r}?"
    return f"known: {', '.join(names)}" if names else "none is known"


class ConfigError(HilError):
    """Something the user wrote is wrong. ``where`` names the file and key, or the option."""

    def __init__(self, where: str, message: str, *, mend: str = "") -> None:
        super().__init__(f"{where}: {message}", mend=mend)
        self.where = where


class InfrastructureError(HilError):
    """Our side broke, not the code under test. ``board``: the one that broke, where it is known."""

    board = ""


class HostLacks(InfrastructureError):
    """A library is not installed here, or this user may not use something."""


class ToolMissing(HostLacks):
    """A program is not on PATH. ``package`` is its Debian package."""

    def __init__(self, tool: str, *, package: str = "", mend: str = "") -> None:
        mend = mend or (f"install it: apt-get install {package}" if package else "")
        super().__init__(f"{tool} is not on PATH", mend=mend)
        self.tool = tool


class ProcessFailed(InfrastructureError):
    """A program that we started ended with an error, or was killed after ``timeout`` seconds."""

    def __init__(
        self,
        argv: Sequence[str],
        *,
        exit_code: int | None,
        output: str = "",
        timeout: float | None = None,
    ) -> None:
        if timeout is not None:
            how = f"did not end within {timeout:g} s"
        else:
            how = f"ended with {describe_exit(exit_code)}"
        said = f":\n{_indent(output)}" if output.strip() else " and said nothing"
        super().__init__(f"{argv[0]} {how}{said}\n  command: {shlex.join(argv)}")
        self.argv = tuple(argv)
        self.exit_code = exit_code
        self.output = output


class ImageError(InfrastructureError):
    """A guest image could not be made, fetched or read."""


class ChecksumMismatch(ImageError):
    """Something fetched is not what was asked for; it was removed."""

    def __init__(self, what: str, *, algorithm: str, wanted: str, got: str) -> None:
        super().__init__(
            f"{what}: its {algorithm} is {got}, wanted {wanted}; nothing of it was kept",
            mend="correct the sum in boards.toml, or find out why the file changed",
        )


class MachineError(InfrastructureError):
    """A machine could not be made or kept."""


class MachineDied(MachineError):
    """QEMU ended by itself; carries its exit code, its stderr and its command."""

    def __init__(
        self,
        name: str,
        *,
        argv: Sequence[str],
        exit_code: int | None,
        stderr: str = "",
        console: str = "",
        mend: str = "",
    ) -> None:
        said = f"; it said:\n{_indent(stderr)}" if stderr.strip() else " and said nothing on stderr"
        last = f"\n  the console's last lines:\n{_indent(console)}" if console.strip() else ""
        super().__init__(
            f"the machine {name} died: QEMU ended with {describe_exit(exit_code)}{said}{last}\n"
            f"  command: {shlex.join(argv)}",
            mend=mend,
        )
        self.argv = tuple(argv)
        self.exit_code = exit_code
        self.stderr = stderr


class BootTimeout(MachineError):
    """The guest never got ready; carries the console's last lines."""

    def __init__(self, name: str, *, timeout: float, waited_for: str, console: str = "") -> None:
        last = (
            f"; the console's last lines:\n{_indent(console)}"
            if console.strip()
            else "; its console said nothing"
        )
        super().__init__(
            f"the machine {name} did not get ready within {timeout:g} s "
            f"(waited for {waited_for}){last}",
            mend="if it is only slow, raise --hil-boot-timeout=SECONDS",
        )
        self.timeout = timeout


class NoRoom(MachineError):
    """The host has no memory, disk or CPU left for what was asked."""


class NoMemory(NoRoom):
    """No memory came free for one more machine."""


class TemplateError(InfrastructureError):
    """A template or a snapshot cannot be made or used."""


class ChannelLost(InfrastructureError):
    """The way to the target (agent channel, monitor, serial line) is gone."""


class ProtocolError(InfrastructureError):
    """The other side of a channel sent something that its protocol does not allow."""


class CoverageError(InfrastructureError):
    """Coverage data that cannot be counted: truncated, of another compiler, of no known source."""


class ForeignCoverage(CoverageError):
    """Counters of another build than the one here: to count them as its own would be wrong."""


class OutcomeUnknown(InfrastructureError):
    """A command was sent and its reply was lost: it may have run or not.

    It is never sent again by itself.
    """


class BoardRestarted(InfrastructureError):
    """A board began to boot, and nobody had asked it to."""


class TargetError(HilError, AssertionError):
    """The target did not do what the test wanted.

    An AssertionError too: to those who tell of tests (Allure, unittest), any other error says that
    the test broke, and not what it tests.
    """


class Crashed(TargetError):
    """The target's kernel or firmware crashed while a test used it.

    ``crash`` is the report (:class:`pytest_hil.crash.Crash`), where there is one already.
    """

    def __init__(self, message: str, *, mend: str = "", crash: object = None) -> None:
        super().__init__(message, mend=mend)
        self.crash = crash


class NoCrash(TargetError):
    """A crash that a test wants did not come within ``timeout`` seconds."""

    def __init__(self, wanted: str, *, timeout: float) -> None:
        super().__init__(f"no crash with a title like {wanted!r} came within {timeout:g} s")
        self.wanted = wanted
        self.timeout = timeout


class NotThere(TargetError):
    """What a test asks of is switched off, closed or gone."""


class CommandFailed(TargetError):
    """A command ended with a non-zero exit code or by a signal.

    ``exit_code`` is negative for a signal, as in :mod:`subprocess`.
    """

    def __init__(self, command: str, *, exit_code: int, stdout: str = "", stderr: str = "") -> None:
        parts = [f"{command!r} ended with {describe_exit(exit_code)} on the target"]
        for name, text in (("stdout", stdout), ("stderr", stderr)):
            if text.strip():
                parts.append(f"  its {name}:\n{_indent(text)}")
        super().__init__("\n".join(parts))
        self.command = command
        self.exit_code = exit_code
        self.stdout = stdout
        self.stderr = stderr


class CommandTimeout(TargetError):
    """A command ran longer than ``timeout`` seconds; its whole process group was killed."""

    def __init__(self, command: str, *, timeout: float, stdout: str = "", stderr: str = "") -> None:
        parts = [f"{command!r} did not end within {timeout:g} s on the target and was killed"]
        for name, text in (("stdout", stdout), ("stderr", stderr)):
            if text.strip():
                parts.append(f"  its {name} so far:\n{_indent(text)}")
        super().__init__("\n".join(parts), mend="give run() a longer timeout= if it needs it")
        self.command = command
        self.timeout = timeout
        self.stdout = stdout
        self.stderr = stderr


class OutputTooLarge(TargetError):
    """A command printed more than ``limit`` bytes; its process group was killed."""

    def __init__(self, command: str, *, limit: int) -> None:
        super().__init__(
            f"{command!r} printed more than {limit} bytes and was killed",
            mend="send it to a file on the target and get() that, "
            "or give run() a larger max_output=",
        )
        self.limit = limit


class TransferError(TargetError):
    """A file could not be put or got; the destination is as it was before."""


class ExpectTimeout(TargetError):
    """The console did not say what was expected within ``timeout`` seconds."""

    def __init__(self, wanted: Sequence[str], *, timeout: float, seen: str = "") -> None:
        names = " or ".join(repr(w) for w in wanted)
        last = f"; since then it said:\n{_indent(seen)}" if seen.strip() else "; it said nothing"
        super().__init__(f"the console did not say {names} within {timeout:g} s{last}")
        self.wanted = tuple(wanted)
        self.timeout = timeout
        self.seen = seen


class ConsoleClosed(TargetError):
    """The console ended (the machine is gone) before it said what was expected."""

    def __init__(self, wanted: Sequence[str], *, seen: str = "") -> None:
        names = " or ".join(repr(w) for w in wanted)
        last = f"; its last lines:\n{_indent(seen)}" if seen.strip() else ""
        super().__init__(f"the console ended before it said {names}{last}")
        self.wanted = tuple(wanted)
        self.seen = seen


class AttachFailed(TargetError):
    """The target did not take a USB device, or did not let go of it.

    ``phase`` says how far it came, ``kernel`` what the target's kernel said last, ``device`` what
    the device's own handlers raised.
    """

    def __init__(
        self, what: str, why: str, *, phase: str = "", kernel: str = "", device: str = ""
    ) -> None:
        parts = [f"{what}: {why}" + (f" (it came as far as: {phase})" if phase else "")]
        for name, text in (
            ("the device's handler raised", device),
            ("the target's kernel said last", kernel),
        ):
            if text.strip():
                parts.append(f"  {name}:\n{_indent(text)}")
        super().__init__("\n".join(parts))
        self.phase = phase
        self.kernel = kernel
        self.device = device


class Unsupported(TargetError):
    """This target has no such thing (a shell without an agent, USB on a bare-metal machine)."""

    def __init__(self, target: str, what: str, *, mend: str = "") -> None:
        super().__init__(f"the target {target} has no {what}", mend=mend)
        self.what = what


def describe_exit(code: int | None) -> str:
    """``exit code 3`` or ``signal SIGKILL``, from a subprocess-style return code."""
    if code is None:
        return "an unknown exit code"
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"signal {signal.Signals(-code).name}"
    except ValueError:
        return f"signal {-code}"


def _indent(text: str, *, last: int = 20) -> str:
    """The last lines of a text, indented, with a word on what was left out."""
    lines = visible(text.rstrip()).splitlines()
    left_out = [f"    … {len(lines) - last} lines before"] if len(lines) > last else []
    return "\n".join(left_out + [f"    {line}" for line in lines[-last:]])
