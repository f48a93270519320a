"""What the pages show as printed is what is printed: their commands are run, and compared."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pytest_hil.cache import Cache
from pytest_hil.config import host_arch

DOCS = Path(__file__).parents[2] / "docs"
EXAMPLES = DOCS / "examples"
# Before pytester gives us another home.
CACHE = Cache.default().root

pytestmark = [
    pytest.mark.machine,
    pytest.mark.skipif(host_arch() != "x86_64", reason="the pages show an x86-64 machine"),
]


class Shown:
    """A block of a page behind ``<!-- output: NAME -->``: a command, and what it printed."""

    def __init__(self, page: str, name: str) -> None:
        text = (DOCS / page).read_text()
        found = re.search(rf"<!-- output: {name} -->\n```console\n(.*?)\n```\n", text, re.DOTALL)
        assert found, f"{page} has no output {name}"
        lines = found[1].splitlines()
        self.command = next(line for line in lines if line.startswith("$ pytest"))[2:]
        self.patterns = [pattern(line) for line in lines if line.strip() and line[0] != "$"]


def pattern(line: str) -> str:
    """Numbers, times, and the length of rules may differ; an ellipsis stands for anything."""
    if line.startswith("hil: "):
        # What is there already, and how it is emulated, depends on the host.
        line = line.partition(")")[0] + "…"
    line = re.sub(r"\d{4}-\d\d-\d\dT[\w-]+", "…", line)
    out = re.escape(line.rstrip()).replace("…", ".*")
    out = re.sub(r"(\\ )+", r" +", out)
    out = re.sub(r"(=|_|\\-){4,}", lambda rule: f"{rule[1]}+", out)
    return re.sub(r"\d+", r"\\d+", out) + r"\s*$"


@pytest.fixture
def directory(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PYTEST_HIL_CACHE", str(CACHE))
    monkeypatch.setenv("PYTHONPATH", str(DOCS.parent))
    return pytester.path


def run(pytester: pytest.Pytester, shown: Shown) -> pytest.RunResult:
    """Run the command of a block, and compare what it prints."""
    program, *arguments = shlex.split(shown.command)
    module = {"pytest": "pytest", "pytest-hil": "pytest_hil.cli.main"}[program]
    done = pytester.run(sys.executable, "-m", module, *arguments, timeout=300)
    # Options and boards.toml that are wrong are said on stderr.
    (done.stderr if done.ret == 4 else done.stdout).re_match_lines(shown.patterns)
    return done


def take(directory: str, to: Path) -> None:
    for path in (EXAMPLES / directory).iterdir():
        if path.is_file() and path.suffix != ".elf":
            shutil.copy(path, to)


def test_tutorial(pytester: pytest.Pytester, directory: Path) -> None:
    take("tutorial", directory)
    program = directory / "bootcount"
    right = program.read_text()
    assert right.count(" -ge ") == 1
    program.write_text(right.replace(" -ge ", " -gt "))
    assert run(pytester, Shown("tutorial.md", "fails")).ret == 1
    assert run(pytester, Shown("tutorial.md", "artifacts")).ret == 0
    assert run(pytester, Shown("tutorial.md", "open")).ret == 0
    program.write_text(right)
    assert run(pytester, Shown("tutorial.md", "passes")).ret == 0


def test_bare_metal(pytester: pytest.Pytester, directory: Path) -> None:
    take("howto/bare_metal", directory)
    page = (DOCS / "howto/bare-metal.md").read_text()
    build = re.search(r"^\$ python (-m ziglang .*)$", page, re.MULTILINE)
    assert build
    subprocess.run([sys.executable, *build[1].split()], cwd=directory, check=True)
    assert run(pytester, Shown("howto/bare-metal.md", "bare")).ret == 0


def test_several_targets(pytester: pytest.Pytester, directory: Path) -> None:
    take("howto/several_targets", directory)
    assert run(pytester, Shown("howto/several-targets.md", "several")).ret == 0
    assert run(pytester, Shown("howto/several-targets.md", "list")).ret == 0
    assert run(pytester, Shown("howto/several-targets.md", "wrong")).ret == 4
