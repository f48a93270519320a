"""Adds up the JUnit XML files in a directory: one line on what all tiers together came to.

A tier's ``NAME.xml`` may have a ``NAME.again`` beside it: of the tests that failed, run once more.
What passed then is flaky, and named.

    count_results.py DIRECTORY
    count_results.py --failed FILE       the tests that failed, one a line
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree


def failed(path: Path) -> set[str]:
    """The tests in a file that failed or had an error."""
    if not path.exists():
        return set()
    return {
        f"{case.get('classname')}.{case.get('name')}"
        for case in ElementTree.parse(path).iter("testcase")
        if case.find("failure") is not None or case.find("error") is not None
    }


def report(directory: Path) -> Iterator[str]:
    """``N passed, N flaky, N failed, N skipped``; errors are failures here. Then the flaky ones."""
    tests = skipped = 0
    broken: set[str] = set()
    flaky: set[str] = set()
    for path in sorted(directory.glob("*.xml")):
        for suite in ElementTree.parse(path).iter("testsuite"):
            tests += int(suite.get("tests", 0))
            skipped += int(suite.get("skipped", 0))
        first, again = failed(path), path.with_suffix(".again")
        still = failed(again) if again.exists() else first
        broken |= still
        flaky |= first - still
    passed = tests - skipped - len(broken) - len(flaky)
    yield f"{passed} passed, {len(flaky)} flaky, {len(broken)} failed, {skipped} skipped"
    for name in sorted(flaky):
        yield f"flaky: {name}"


if __name__ == "__main__":
    lines = (
        sorted(failed(Path(sys.argv[2])))
        if sys.argv[1] == "--failed"
        else report(Path(sys.argv[1]))
    )
    for line in lines:
        print(line)
