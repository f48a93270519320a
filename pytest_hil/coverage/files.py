"""What programs on a target leave in its file system: gcc's counters, and coverage.py's data.

A program writes its counters when it ends, into a directory that is its own process's (GCOV_PREFIX
with ``%p``: from gcc 10 on). There it adds to no earlier file: one that is cut off by its death
is seen to be, where new numbers over the first half of old ones would not. After each command they
are moved here and added up. So a crash costs what was not written yet, and no more.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from pytest_hil.coverage import records
from pytest_hil.coverage.gcov import Counters
from pytest_hil.errors import CoverageError
from pytest_hil.target import Target

# $1: ours on the target. What is there is set aside, so that whoever writes in the meantime is not
# disturbed; programs of any user may. Says "taken" when there is something, then what Python left.
_LOOK = """
[ -d "$1/now" ] || mkdir -p -m 1777 "$1" "$1/now" "$1/python" || exit
if [ ! -e "$1/taken" ] && [ -n "$(ls -A "$1/now")" ]; then
    mv "$1/now" "$1/taken" && mkdir -m 1777 "$1/now" || exit
fi
[ -e "$1/taken" ] && echo taken
[ -n "$(ls -A "$1/python")" ] || exit 0
cd "$1/python" && sum=md5sum
command -v md5sum >/dev/null || sum=cksum
find . -type f -name '.coverage*' -exec $sum {} +
"""
_TAKEN = "taken\n"
_TIMEOUT = 20.0
_MAX_LIST = 4 * 2**20
# A file that is not whole may be one that is being written: it is fetched so often, as long as it
# changes.
_LOOKS = 5


class TargetFiles:
    """Fetches them from a target. ``remote`` is the directory there, and nobody else's."""

    def __init__(self, target: Target, remote: str) -> None:
        self._target = target
        self._remote = remote
        self._python = ""
        self._into: Path | None = None
        self.problems: list[CoverageError] = []

    @property
    def environment(self) -> Mapping[str, str]:
        """What a program must have to write where it is looked for."""
        return {
            "GCOV_PREFIX": f"{self._remote}/now/%p",
            "GCOV_PREFIX_STRIP": "0",
            "COVERAGE_FILE": f"{self._remote}/python/.coverage",
        }

    def begin(self, into: Path) -> None:
        """From now on, what is fetched goes below a directory of this host, which is empty."""
        self._into = into
        self.problems = []

    def clear(self) -> None:
        """Nothing of what the target has so far counts for what comes."""
        self.remove()
        self._python = ""

    def remove(self) -> None:
        """Leave nothing on the target."""
        self._target.run(["rm", "-rf", self._remote], timeout=_TIMEOUT)

    def fetch(self) -> None:
        """Get what is new since the last time."""
        said = self._look()
        while said.startswith(_TAKEN):
            self._take_all()
            said = self._look()
        if said and said != self._python:
            self._get_python()
        self._python = said

    def _look(self) -> str:
        argv = ["sh", "-c", _LOOK, "sh", self._remote]
        return self._target.run(argv, timeout=_TIMEOUT, max_output=_MAX_LIST).stdout

    def _take_all(self) -> None:
        """Counters: each file of each process, once."""
        assert self._into is not None
        self._into.mkdir(parents=True, exist_ok=True)
        taken = f"{self._remote}/taken"
        broken: dict[bytes, CoverageError] = {}
        with tempfile.TemporaryDirectory(prefix=".new-", dir=self._into) as new:
            for number in range(_LOOKS):
                before, got = broken, Path(new, str(number))
                self._target.get(taken, got)
                found = _regular(got, ".gcda")
                broken = {}
                for path in found:
                    name, content = path.relative_to(got), _content(path)
                    try:
                        records.read_data(content, _written_as(name))
                    except CoverageError as error:
                        broken[bytes(name) + b"\0" + content] = error
                if broken.keys() == before.keys():
                    break
            # Only when they are here for good may they go there; a kill in between counts nothing
            # twice, because a test that was killed is not counted at all.
            for path in found:
                name, content = path.relative_to(got), _content(path)
                if bytes(name) + b"\0" + content not in broken:
                    self._add(self._into / "gcov" / _written_as(name)[1:], content)
        self.problems += broken.values()
        self._target.run(["rm", "-rf", taken], timeout=_TIMEOUT)

    def _add(self, kept: Path, content: bytes) -> None:
        """One more run of a program."""
        kept.parent.mkdir(parents=True, exist_ok=True)
        if kept.exists():
            total = records.add(kept.read_bytes(), content)
            if total is None:
                # Of another build: both are there, and each has its own notes or none.
                kept = _free(kept)
            else:
                content = total
        kept.write_bytes(content)

    def _get_python(self) -> None:
        """Data files stay on the target: programs there add to them, or report on them."""
        assert self._into is not None
        self._into.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".new-", dir=self._into) as new:
            got = Path(new, "got")
            self._target.get(f"{self._remote}/python", got)
            kept = self._into / "python"
            kept.mkdir(exist_ok=True)
            for path in _regular(got):
                if path.name.startswith(".coverage"):
                    path.rename(_free(kept / path.name))

    def counters(self) -> Iterator[Counters]:
        """All of gcc's that were fetched since :meth:`begin`."""
        if self._into is not None:
            top = self._into / "gcov"
            for path in _regular(top):
                built = f"/{path.relative_to(top)}"
                yield Counters(path, built[: built.rindex(".gcda") + 5])

    def python(self) -> list[Path]:
        """All of coverage.py's that were fetched since :meth:`begin`."""
        return [] if self._into is None else _regular(self._into / "python")


def _written_as(name: Path) -> str:
    """The path that a program has compiled in: without the process's own directory."""
    return "/" + "/".join(name.parts[1:])


def _content(path: Path) -> bytes:
    """Of a file that is too large to be one, its beginning: it is seen to be cut off."""
    with path.open("rb") as file:
        return file.read(records.MAX_SIZE)


def _regular(top: Path, suffix: str = "") -> list[Path]:
    """Files, and nothing that a link leads to: the target decides what is in there."""
    found = top.rglob(f"*{suffix}") if top.is_dir() else ()
    return sorted(path for path in found if path.is_file() and not path.is_symlink())


def _free(path: Path) -> Path:
    """A name beside it that nothing has, or its own."""
    number, found = 0, path
    while found.exists():
        number += 1
        found = path.with_name(f"{path.name}.{number}")
    return found
