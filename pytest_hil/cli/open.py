"""``pytest-hil open TEST``: the machine of a failed test, in the state in which it failed."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_hil.artifacts import index
from pytest_hil.artifacts.index import RunRecord, TestRecord
from pytest_hil.cli import choice
from pytest_hil.cli.artifacts import artifacts_root
from pytest_hil.cli.status import Status
from pytest_hil.errors import CommandTimeout, ConfigError, HilError, TemplateError, nearest

if TYPE_CHECKING:
    from pytest_hil.bench import Bench, Settings
    from pytest_hil.cli.main import Subparsers
    from pytest_hil.config import QemuTarget
    from pytest_hil.qemu.guest import Guest

MACHINE = "machine"
_HOW_TO_KEEP = "pytest --hil-keep=failed keeps the machines of failed tests"


def add_parser(subparsers: Subparsers) -> argparse.ArgumentParser:
    """Declare the verb."""
    parser = subparsers.add_parser(
        "open",
        help="open the machine of a failed test as it failed",
        description="Start a copy of a kept machine (pytest --hil-keep=failed) in the very state "
        "in which its test failed, and connect this terminal to its console; Ctrl-] leaves. "
        "What is done there does not change what is kept.",
    )
    parser.add_argument(
        "test", metavar="TEST", nargs="?", default="", help="a node id, or a part of it"
    )
    parser.add_argument("--run", metavar="RUN", default=index.LATEST, help="default: latest")
    parser.add_argument(
        "--artifacts", metavar="DIR", type=Path, help="default: .hil here, or above"
    )
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--shell", action="store_true", help="a shell beside the console")
    how.add_argument("--run-command", metavar="CMD", help="run one shell line, and leave")
    parser.add_argument(
        "--timeout", metavar="SECONDS", type=choice.seconds, help="of --run-command"
    )
    return parser


def run(args: argparse.Namespace) -> int:
    """Do it; the exit code."""
    from pytest_hil.bench import Bench

    record = index.find_run(artifacts_root(args.artifacts), args.run)
    test = _one_kept(record, args.test)
    about = _about(test)
    with (
        Status() as status,
        Bench(_settings(about, test), progress=status, say=status.say) as bench,
    ):
        guest = _open(bench, about, test)
        status.end()
        if args.run_command is not None:
            return _command(guest, args.run_command, args.timeout)
        if args.shell:
            from pytest_hil.cli.line_shell import talk

            print(f"{_title(test)}; Ctrl-D leaves")
            return talk(guest)
        return _console(guest, test)


def _one_kept(run: RunRecord, wanted: str) -> TestRecord:
    """The test that is meant, and whose machine was kept. Raises ConfigError."""
    kept = [test for test in run.tests() if _machine(test).is_dir()]
    found = [test for test in index.find_tests(run, wanted) if test in kept]
    where = f"run {run.id}"
    if len(found) == 1:
        return found[0]
    if found:
        listing = "\n    ".join(test.path.name for test in found)
        raise ConfigError(
            where,
            f"{len(found)} kept machines are of tests with {wanted!r}",
            mend=f"one of:\n    {listing}",
        )
    others = f"; kept: {', '.join(test.path.name for test in kept)}" if kept else ""
    # One of which the run says why it could not be, before one that was not to be.
    matching = sorted(index.find_tests(run, wanted), key=lambda test: not _why_not(test))
    why = _why_not(matching[0]) if matching else ""
    mend = "" if why else _HOW_TO_KEEP
    if not wanted or (not matching and not run.tests()):
        raise ConfigError(where, f"no machine was kept{why}", mend=mend)
    if matching:
        first = matching[0]
        what = f"the machine of {first.nodeid} ({first.outcome or first.status}) was not kept"
        raise ConfigError(where, f"{what}{why}{others}", mend=mend)
    names = [test.nodeid for test in run.tests()]
    raise ConfigError(where, f"no test has {wanted!r}", mend=nearest(wanted, names))


def _why_not(test: TestRecord) -> str:
    why = test.meta.get("not_kept")
    return f": {why}" if why else ""


def _machine(test: TestRecord) -> Path:
    return test.path / MACHINE


def _about(test: TestRecord) -> dict[str, Any]:
    """What the run wrote down about the machine: what to open, and with which settings."""
    about = test.meta.get("machine")
    if not isinstance(about, dict) or not isinstance(about.get("target"), str):
        raise TemplateError(
            f"{test.path / 'meta.json'} does not say what the kept machine is",
            mend="the run was killed while it kept it, or it is of another version of pytest-hil",
        )
    return about


def _title(test: TestRecord) -> str:
    """Which test, and which of its machines if that was not its ``hil``."""
    label = _about(test).get("label")
    which = f" ({label})" if label else ""
    return f"{test.nodeid}{which}, as it {test.outcome or 'was interrupted'}"


def _settings(about: dict[str, Any], test: TestRecord) -> Settings:
    argv = _argv(test)
    return choice.made(
        {
            "root": about.get("root") or str(Path.cwd()),
            "boards": about.get("boards"),
            "kernel": about.get("kernel"),
            "kernel_modules": about.get("kernel_modules"),
            # A state of one accelerator loads under another, and the guest dies of it.
            "accel": argv[argv.index("-accel") + 1] if "-accel" in argv else "auto",
            "memory_budget": choice.memory_budget(),
        }
    )


def _argv(test: TestRecord) -> list[str]:
    from pytest_hil.qemu import state

    argv = state.manifest(_machine(test)).get("argv")
    return [str(word) for word in argv] if isinstance(argv, list) else []


def _open(bench: Bench, about: dict[str, Any], test: TestRecord) -> Guest:
    overrides = about.get("overrides") or {}
    target = bench.target(about["target"], **overrides)
    _check_same(bench, target, test)
    return bench.open_saved(target, _machine(test))


def _check_same(bench: Bench, target: QemuTarget, test: TestRecord) -> None:
    """The machine of today must be the kept one, down to the last device. Raises TemplateError."""
    from pytest_hil.qemu import cmdline

    kept, today = _argv(test), cmdline.fingerprint(bench.plan(target).hardware)
    if kept == today:
        return
    lines = "\n".join(f"    {line}" for line in differences(kept, today))
    raise TemplateError(
        f"the kept machine of {test.nodeid} cannot be opened any more: the target {target.name} "
        f"is another one today:\n{lines}",
        mend="put back what changed (boards.toml, the kernel, the image, QEMU), or run the test "
        "again with --hil-keep=failed",
    )


def differences(kept: Sequence[str], today: Sequence[str]) -> list[str]:
    """What differs between two of QEMU's command lines, a line an option."""
    old, new = _options(kept), _options(today)
    gone = [option for option in old if option not in new]
    added = [option for option in new if option not in old]
    found = []
    for was, now in zip_longest(gone, added, fillvalue=""):
        if was.partition(" ")[0] == now.partition(" ")[0]:
            found.append(f"it was {was}, it is {now.partition(' ')[2]}")
        else:
            found += [f"it had {was}"] * bool(was) + [f"it has now {now}"] * bool(now)
    return found or ["the order of its devices"]


def _options(argv: Sequence[str]) -> list[str]:
    """``["-m 256M", "-nodefaults", …]``, the binary first."""
    found = [f"QEMU {argv[0]}"] if argv else []
    for word in argv[1:]:
        if word.startswith("-") or len(found) == 1:
            found.append(word)
        else:
            found[-1] += f" {word}"
    return found


def _console(guest: Guest, test: TestRecord) -> int:
    from pytest_hil.console.interact import interact

    print(_title(test), flush=True)
    left = interact(guest.console, sys.stdin.fileno(), sys.stdout.fileno())
    if left == "console closed" and (died := guest.died()) is not None:
        raise died
    return 0


def _command(guest: Guest, command: str, timeout: float | None) -> int:
    """Its output comes as it is said; its exit code is ours (124: it was killed, 125: not run)."""
    from pytest_hil.agent import protocol
    from pytest_hil.shell.agent_command import Follow

    streams = {protocol.STDOUT: sys.stdout.buffer, protocol.STDERR: sys.stderr.buffer}

    def output(stream: int, data: bytes) -> None:
        streams[stream].write(data)
        streams[stream].flush()

    try:
        done = guest.run(command, check=False, timeout=timeout, follow=Follow(output))
    except CommandTimeout as error:
        # Not what it says to a test about run().
        print(f"pytest-hil: {error.message}", file=sys.stderr)
        return 124
    except HilError as error:
        print(f"pytest-hil: {error}", file=sys.stderr)
        return 125
    return done.exit_code if done.exit_code >= 0 else 128 - done.exit_code
