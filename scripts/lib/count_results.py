"""Adds up the JUnit XML files in a directory: one line on what all tiers together came to."""

from __future__ import annotations

import sys
from pathlib import Path
from xml.etree import ElementTree


def count(directory: Path) -> str:
    """``N passed, N failed, N skipped``; errors are failures here."""
    tests = failed = skipped = 0
    for path in sorted(directory.glob("*.xml")):
        for suite in ElementTree.parse(path).iter("testsuite"):
            tests += int(suite.get("tests", 0))
            failed += int(suite.get("failures", 0)) + int(suite.get("errors", 0))
            skipped += int(suite.get("skipped", 0))
    return f"{tests - failed - skipped} passed, {failed} failed, {skipped} skipped"


if __name__ == "__main__":
    print(count(Path(sys.argv[1])))
