"""coverage.py's data of Python programs on a target."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_hil.coverage.gcov import Read
from pytest_hil.coverage.model import FileCoverage, merge_file
from pytest_hil.coverage.paths import Sources
from pytest_hil.errors import CoverageError, ToolMissing

if TYPE_CHECKING:
    from coverage import Coverage


def read(paths: Sequence[Path], sources: Sources) -> Read:
    """Count several data files. A line's count is 1 when it ran: coverage.py does not count.

    Raises ToolMissing when coverage.py is not installed here.
    """
    out = Read()
    if not paths:
        return out
    try:
        import coverage
    except ImportError:
        raise ToolMissing("coverage.py", mend='pip install "pytest-hil[coverage]"') from None
    found: dict[str, list[FileCoverage]] = {}
    for path in paths:
        data = coverage.CoverageData(basename=str(path))
        try:
            data.read()
            ran = {name: data.lines(name) or [] for name in data.measured_files()}
        except coverage.CoverageException as error:
            out.problems.append(CoverageError(f"{path.name} of the target cannot be read: {error}"))
            continue
        finally:
            data.close(force=True)
        analysis = coverage.Coverage(data_file=None, config_file=False)
        for name, lines in ran.items():
            here = sources.here(name)
            if not sources.wanted(here):
                continue
            try:
                file = _file(analysis, here, lines)
            except coverage.CoverageException as error:
                out.problems.append(CoverageError(f"{name} of the target: {error}"))
                continue
            found.setdefault(here, []).append(sources.excluded(file))
    for _, parts in sorted(found.items()):
        file = merge_file(parts)
        # Data files include one another: `coverage run --append`.
        file.counts = [min(1, count) for count in file.counts]
        out.files.append(file)
    return out


def _file(analysis: Coverage, path: str, lines: Sequence[int]) -> FileCoverage:
    """What of a source file could have run, and what did."""
    analysis.get_data().add_lines({path: lines})
    _name, statements, _excluded, missing, _text = analysis.analysis2(path)
    absent = set(missing)
    return FileCoverage(path, list(statements), [int(n not in absent) for n in statements])
