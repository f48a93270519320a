"""Crashes after which the target restarted: the record that the kernel left of them in pstore."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pytest

from pytest_hil.errors import HilError
from pytest_hil.plugin.artifacts import place_of, run_of, warn
from pytest_hil.plugin.items import Attempt, Use

if TYPE_CHECKING:
    from pytest_hil.crash import Crash, Rules

_SAID = pytest.StashKey[set[str]]()
_SEEN = pytest.StashKey[set[tuple[str, bytes]]]()

# Where records lie: in the file system itself, or where systemd-pstore.service has moved them.
# Only dumps: console-ramoops is there after each restart, with what other tests were told of.
# One command, for targets at the end of a slow line; it has to work in any shell.
_LOOK = """
d=/sys/fs/pstore
if [ -d $d ]; then
grep -q " $d pstore " /proc/mounts || mount -t pstore pstore $d 2>/dev/null
[ -r $d ] || echo denied
for d in $d /var/lib/systemd/pstore; do
for f in $d/dmesg-* $d/*/dmesg-* $d/*/*/dmesg-*; do
if [ -f "$f" ]; then echo $d; break; fi
done
done
fi
"""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addini(
        "hil_pstore",
        "whether a test fails when its target's kernel has left a record in pstore of a crash that "
        "its console did not show; takes the records away; costs two commands a test",
        type="bool",
        default=False,
    )


def begin(item: pytest.Item, use: Use, rules: Callable[[], Rules]) -> list[Crash]:
    """A test begins: the crashes since the last look that nobody was told of.

    What is found by the first look is from before this run: it is a warning, and nobody's crash.
    """
    if not item.config.getini("hil_pstore") or "shell" not in use.target.features:
        return []
    watch = use.target.crash_watch
    first = watch.settled is None
    watch.settled = watch.settled or 0
    found = _news(item, use, "pstore-before", rules)
    if not first:
        return found
    for crash in found:
        _say_once(item, use, f"crashed before this run: {crash.title}; its record was taken away")
    return []


def unsaid(attempt: Attempt, rules: Callable[[], Rules]) -> Iterator[tuple[Use, Crash]]:
    """The crashes of which there are records since, if the consoles did not show them."""
    for use in attempt.uses:
        if use.target.crash_watch.settled is not None and not use.target.closed:
            for crash in _news(attempt.item, use, "pstore", rules):
                yield use, crash


def _news(item: pytest.Item, use: Use, name: str, rules: Callable[[], Rules]) -> list[Crash]:
    """The crashes in the records that there are, but the known ones and those that are no matter.

    The records are in the test's directory then, under ``name``, and not on the target any more.
    """
    from pytest_hil.crash import pstore

    records = _taken(item, use, name)
    if not records:
        return []
    watch = use.target.crash_watch
    # An Oops that a test was told of has its record when a later one restarts the target: that one
    # is not to blame. But the same crash again, after the record was taken, is another one.
    known = watch.titles[watch.settled :]
    watch.settled = len(watch.titles)
    return [
        crash
        for crash in pstore.crashes(records, rules())
        if crash.title not in known and not any(one.search(crash.title) for one in watch.ignore)
    ]


def _taken(item: pytest.Item, use: Use, name: str) -> list[tuple[str, bytes]]:
    """The names and contents of the records that were not seen yet."""
    target = use.target
    try:
        # Before somebody takes its power away, and with it what is in its memory.
        target.follow_restart()
        look = target.run(_LOOK, check=False).stdout.split()
    except HilError:
        return []  # it is gone, and says so in another way
    places = [line for line in look if line.startswith("/")]
    if "denied" in look:
        _say_once(item, use, "may not be asked for its pstore: only root may read it")
    directory = place_of(item, use.label) / name
    try:
        for place in places:
            directory.mkdir(exist_ok=True)
            target.get(place, directory / place.strip("/").replace("/", "-"))
            # Only now: what could not be got stays there.
            removed = target.run(f"rm -rf {place}/*", check=False)
            if not removed.ok:
                _say_once(item, use, f"keeps its records of crashes: {removed.stderr.strip()}")
        records = [
            (str(path.relative_to(directory)), path.read_bytes())
            for path in directory.rglob("dmesg-*")
        ]
    except HilError as error:
        _say_once(item, use, f"has records in its pstore that could not be read: {error}")
        return []
    except OSError as error:
        run_of(item.config).trouble(error)
        return []
    seen = item.config.stash.setdefault(_SEEN, set())
    before = seen.copy()
    seen.update((target.name, data) for _, data in records)
    return [(name, data) for name, data in records if (target.name, data) not in before]


def _say_once(item: pytest.Item, use: Use, what: str) -> None:
    """Each test may have a target that is new."""
    said = item.config.stash.setdefault(_SAID, set())
    text = f"hil_pstore: the target {use.target.name} {what}"
    if text not in said:
        said.add(text)
        warn(item.config, text, item.nodeid)
