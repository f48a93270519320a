"""A crash of a target fails the test that was running: at once, and with the crash's title."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING

import pytest

from pytest_hil.errors import (
    BoardRestarted,
    ChannelLost,
    ConfigError,
    Crashed,
    InfrastructureError,
    MachineDied,
    OutcomeUnknown,
)
from pytest_hil.plugin import pstore, taint
from pytest_hil.plugin.artifacts import directory_of, place_of, run_of, warn
from pytest_hil.plugin.items import Attempt, Use, attempt_of, now
from pytest_hil.plugin.symbols import with_lines

if TYPE_CHECKING:
    from pytest_hil.crash import Crash, Rules
    from pytest_hil.target import Opened, Target

PREFIX = "crash: "

_RULES = pytest.StashKey["Rules"]()
_IGNORED = pytest.StashKey[tuple[re.Pattern[str], ...]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addini(
        "hil_crash_ignore",
        "titles of crashes that fail no test: regular expressions, one a line",
        type="linelist",
    )
    parser.addini(
        "hil_crash_rules",
        "more that is a crash: KIND: HEADER, or KIND: HEADER ... END, one a line",
        type="linelist",
    )
    parser.addini(
        "hil_taint",
        "whether a test fails when its target's kernel was tainted by a crash that its console did "
        "not show; costs two commands a test",
        type="bool",
        default=False,
    )


def pytest_configure(config: pytest.Config) -> None:
    # What is wrong is said before the first test. That packages bring rules is not looked for yet.
    ignored(config)
    if config.getini("hil_crash_rules"):
        try:
            rules(config)
        except ConfigError as wrong:
            raise pytest.UsageError(str(wrong)) from None


def ignored(config: pytest.Config) -> tuple[re.Pattern[str], ...]:
    """The ini file's patterns of titles. Raises UsageError."""
    found = config.stash.get(_IGNORED, None)
    if found is None:
        try:
            found = tuple(re.compile(line) for line in config.getini("hil_crash_ignore"))
        except re.error as wrong:
            raise pytest.UsageError(
                f"hil_crash_ignore: {wrong.pattern!r} is no regular expression: {wrong}"
            ) from None
        config.stash[_IGNORED] = found
    return found


def rules(config: pytest.Config) -> Rules:
    """What is a crash. Raises ConfigError for rules that cannot be used."""
    found = config.stash.get(_RULES, None)
    if found is None:
        from pytest_hil.crash import Rules

        found = Rules().installed().reading(config.getini("hil_crash_rules"))
        config.stash[_RULES] = found
    return found


@pytest.hookimpl(tryfirst=True)
def pytest_hil_ready(target: Target, item: pytest.Item, label: str) -> None:
    """A test begins to use a target: what crashes from now on is its."""
    from pytest_hil.target import Opened

    assert isinstance(target, Opened)  # whoever opened it gave it here
    attempt = attempt_of(item)
    use = next((one for one in attempt.uses if one.target is target), None) if attempt else None
    if use is None:
        return
    watch = target.watch_crashes(partial(rules, item.config))
    watch.ignore = (*ignored(item.config), *use.wanted.wish.crash_ignore)
    directory = directory_of(item)

    def tell(crash: Crash) -> None:
        directory.events("crash", machine=label or target.name, title=crash.title, **_facts(crash))

    watch.on_crash = tell
    if watch.failure is not None:
        use.blind = True
        raise watch.failure.with_traceback(None)
    taint.begin(item.config, use)
    missed = [*watch.unseen(), *pstore.begin(item, use, partial(rules, item.config))]
    use.crash_mark = watch.mark()
    if missed and _only_restarted(missed):
        # Nobody was harmed: it is well again, as this test has it now.
        warn(item.config, f"the board {target.name} restarted between two tests", item.nodeid)
    elif missed:
        raise Crashed(
            f"the target {target.name} crashed before this test, after the last one that used it: "
            f"{missed[0].title}",
            crash=missed[0],
        )


def check_left(config: pytest.Config, target: Opened) -> None:
    """A target is about to be closed that the test of this moment does not use: nobody else would
    tell of a crash since the last one that did. Raises Crashed,
    and InfrastructureError when nobody knows.
    """
    attempt = now(config).attempt
    if attempt is not None and any(use.target is target for use in attempt.uses):
        return
    watches = [each.crash_watch for each in (target, *target.twins)]
    left = [crash for watch in watches for crash in watch.settle_unseen()]
    failures = [watch.failure for watch in watches if watch.failure is not None]
    if failures and not left:
        raise failures[0].with_traceback(None)
    if left and _only_restarted(left):
        text = f"the board {target.name} restarted after the last test that used it"
        warn(config, text, "" if attempt is None else attempt.item.nodeid)
    elif left:
        raise Crashed(
            f"the target {target.name} crashed after the last test that used it: {left[0].title}",
            crash=left[0],
        )


def _only_restarted(crashes: Iterable[Crash]) -> bool:
    return all(crash.kind == "reset" for crash in crashes)


def _facts(crash: Crash) -> dict[str, str]:
    return {"crash": crash.kind, "severity": crash.severity}


def crashed(
    item: pytest.Item, attempt: Attempt, error: BaseException | None, *, phase: str
) -> Crashed | InfrastructureError | None:
    """The crash of this phase of a test, told with its title, if there was one; else why nobody
    knows, where that is so and nothing else is wrong.

    ``error`` is what ended the phase. Of a board that restarted, and said nothing before, nobody
    knows why: it may have been its power.
    """
    # A kernel that said through its hypervisor that it panicked prints why, perhaps a bit later.
    told = isinstance(error, Crashed) and error.crash is None
    found = list(_found(attempt, certain=told))
    failure = None
    if phase == "call" and _only_restarted(one for _, one in found):
        try:
            found = [*_unsaid(attempt), *found]
        except ConfigError as wrong:
            from pytest_hil.crash_watch import blind

            failure = blind(wrong)
    if not found:
        if error is None or isinstance(error, pytest.skip.Exception):
            return _failure(attempt, failure)
        return error if isinstance(error, Crashed) else None
    _write(item, found)
    (use, crash), *more = found
    for each, one in found:
        each.crashes.append(one)
        each.target.console.interruption.take()
    if _only_restarted([one for _, one in found]):
        restarted = BoardRestarted(
            f"the board {use.target.name} restarted by itself: "
            f"{crash.text.strip().splitlines()[0]}",
            mend="a watchdog, its power, a crash that its console does not show, or the test: "
            'a restart that it wants is hil.reset(), or with hil.crashes("unexpected reset")',
        )
        restarted.board = use.target.name
        return restarted
    name = f" ({use.label})" if use.label else ""
    lines = [f"{crash.title}{name}"]
    lines += [f"  then: {one.title}" for _, one in more[:5]]
    if crash.panic and crash.panic not in crash.title:
        lines.append(f"  it ended with: {crash.panic}")
    return Crashed("\n".join(lines), crash=crash)


def _failure(
    attempt: Attempt, unsaid: InfrastructureError | None = None
) -> InfrastructureError | None:
    """Why crashes are not found any more; said once in an attempt."""
    untold = [use for use in attempt.uses if not use.blind]
    watches = [use.target.crash_watch for use in untold]
    failure = next((watch.failure for watch in watches if watch.failure is not None), unsaid)
    for use in untold if failure is not None else ():
        use.blind = True
    return failure


def aftermath(attempt: Attempt, error: BaseException | None) -> Crashed | None:
    """The crash of an earlier phase or subtest of a test, if ``error`` says only that the target
    answers no more: a tear-down that cleans up on a machine that panicked finds nothing else.
    """
    if not isinstance(error, ChannelLost | OutcomeUnknown | MachineDied):
        return None
    for use in attempt.uses:
        for crash in use.crashes:
            if crash.gone and error.board in ("", use.target.name):
                return Crashed(f"{crash.title}\n  then: {error.message}", crash=crash)
    return None


def _found(attempt: Attempt, *, certain: bool) -> Iterator[tuple[Use, Crash]]:
    for use in attempt.uses:
        watch = use.target.crash_watch
        if crashes := watch.settle(use.crash_mark, certain=certain):
            for crash in with_lines(attempt.item, crashes, use.target.modules):
                yield use, crash
        use.crash_mark = watch.mark()


def _unsaid(attempt: Attempt) -> list[tuple[Use, Crash]]:
    """What no console has shown."""
    config = attempt.item.config
    known = partial(rules, config)
    found = list(taint.unsaid(config, attempt, known)) or list(pstore.unsaid(attempt, known))
    return [(use, with_lines(attempt.item, [crash], use.target.modules)[0]) for use, crash in found]


def _write(item: pytest.Item, found: Sequence[tuple[Use, Crash]]) -> None:
    """crash.txt for people and crash.json for programs, beside what the target said."""
    from pytest_hil.artifacts.disk import write_json

    for use in {id(use): use for use, _ in found}.values():
        mine = [*use.crashes, *(crash for each, crash in found if each is use)]
        place = place_of(item, use.label)
        try:
            write_json(place / "crash.json", [asdict(crash) for crash in mine])
            text = "\n".join(f"== {crash.title}\n{crash.text.rstrip()}\n" for crash in mine)
            (place / "crash.txt").write_text(text)
        except OSError as error:
            run_of(item.config).trouble(error)
    item.user_properties += [("hil_crash", crash.title) for _, crash in found]


def section(item: pytest.Item, use: Use, *, lines: int = 60) -> str:
    """A target's crash reports, for the report of its test; "" if it did not crash."""
    from pytest_hil.errors import visible

    said = [line for crash in use.crashes for line in visible(crash.text.rstrip()).splitlines()]
    if not said:
        return ""
    if len(said) > lines:
        said = [*said[:lines], f"… {len(said) - lines} lines more"]
    return "\n".join([*said, f"[all of it: {place_of(item, use.label) / 'crash.txt'}]"])
