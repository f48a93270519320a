"""What the documentation says is so: links, names, and code that is a file's.

Two kinds of comment may stand before a fenced block::

    <!-- docs/examples/test_fork.py -->                  the block is this file
    <!-- docs/examples/test_fork.py: test_twins -->      … this function or class of it
    <!-- output: NAME -->                                a machine's test compares it with what is
                                                         printed (tests/integration/test_pages.py)
"""

from __future__ import annotations

import argparse
import ast
import re
import tomllib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache, partial
from importlib import import_module
from pathlib import Path
from urllib.parse import unquote

import pytest

from pytest_hil import config
from pytest_hil.cli.main import VERBS
from pytest_hil.errors import ConfigError
from pytest_hil.plugin import marker
from pytest_hil.plugin.selection import FIXTURES

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "docs" / "examples"
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]


@dataclass(frozen=True)
class Block:
    """A fenced block; ``comment`` is that on the line before it."""

    page: Path
    line: int
    language: str
    comment: str
    text: str

    @property
    def where(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


@cache
def blocks(page: Path) -> tuple[Block, ...]:
    found = []
    before, start, lines = "", 0, list[str]()
    for number, line in enumerate(page.read_text().splitlines(), 1):
        if line.startswith("```"):
            if start:
                comment = re.fullmatch(r"<!-- (.+) -->", before)
                text = "".join(f"{each}\n" for each in lines[1:])
                said = comment[1] if comment else ""
                found.append(Block(page, start, lines[0][3:].strip(), said, text))
            else:
                lines = []
            start = 0 if start else number
        if start:
            lines.append(line)
        elif line.strip() and not line.startswith("```"):
            before = line.strip()
    assert not start, f"{page}:{start}: a block without an end"
    return tuple(found)


def all_blocks() -> Iterator[Block]:
    for page in PAGES:
        yield from blocks(page)


def prose(page: Path) -> str:
    """A page without its blocks."""
    return re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)


def code(page: Path) -> Iterator[str]:
    """Each line of its blocks, and each piece of `code` in its text."""
    for block in blocks(page):
        yield from block.text.splitlines()
    yield from (found[1] for found in re.finditer(r"`([^`\n]+)`", prose(page)))


def anchors(page: Path) -> set[str]:
    """What a heading can be reached by, as GitHub makes it."""
    found: set[str] = set()
    for heading in re.findall(r"^#+ +(.+)$", prose(page), re.MULTILINE):
        text = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).lower()
        name = re.sub(r"[^\w\- ]", "", text).strip().replace(" ", "-")
        number = 0
        while (slug := f"{name}-{number}" if number else name) in found:
            number += 1
        found.add(slug)
    return found


def test_links_lead_somewhere() -> None:
    wrong = []
    for page in PAGES:
        for text, target in re.findall(r"\[([^]]*)\]\(([^)\s]+)\)", prose(page)):
            if re.match(r"[a-z]+:", target):
                continue
            path, _, anchor = target.partition("#")
            to = (page.parent / unquote(path)).resolve() if path else page
            if not to.exists() or (anchor and anchor not in anchors(to)):
                wrong.append(f"{page.relative_to(ROOT)}: [{text}]({target})")
    assert wrong == []


def test_every_page_is_reached_from_the_index() -> None:
    index = ROOT / "docs" / "index.md"
    linked = {
        (index.parent / target).resolve()
        for target in re.findall(r"\]\(([^)#\s]+)\)", index.read_text())
    }
    pages = {page for page in PAGES if page.is_relative_to(index.parent)} - {index}
    assert {str(page.relative_to(ROOT)) for page in pages - linked} == set()


def content(comment: str) -> str:
    """The file, or the function or class of it, that a comment names."""
    path, _, name = comment.partition(": ")
    text = (ROOT / path).read_text()
    if not name:
        return text
    for node in ast.parse(text).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name == name:
            first = min([node.lineno, *(each.lineno for each in node.decorator_list)])
            return "".join(f"{line}\n" for line in text.splitlines()[first - 1 : node.end_lineno])
    raise LookupError(f"{path} has no {name}")


def test_blocks_of_a_file_are_as_in_the_file() -> None:
    named = [block for block in all_blocks() if block.comment and block.comment[:7] != "output:"]
    assert named
    differing = [block.where for block in named if block.text != content(block.comment)]
    assert differing == []


def test_every_example_is_mentioned() -> None:
    text = "\n".join(page.read_text() for page in PAGES)
    files = [path for path in EXAMPLES.rglob("*") if path.is_file() and is_source(path)]
    assert len(files) > 10
    missing = [path for path in files if not any(name in text for name in mentions(path))]
    assert missing == []


def mentions(path: Path) -> Iterator[str]:
    """How a page may mention a file: by its path, or by that of a how-to's own directory."""
    relative = path.relative_to(EXAMPLES)
    yield f"examples/{relative.as_posix()}"
    if len(relative.parts) > 2:
        yield f"examples/{relative.parent.as_posix()})"


def is_source(path: Path) -> bool:
    """Not something that a run or a build has left."""
    parts = path.relative_to(EXAMPLES).parts
    return not any(part.startswith((".", "__")) for part in parts) and path.suffix != ".elf"


def test_boards_files_can_be_loaded(tmp_path: Path) -> None:
    loaded = 0
    for block in all_blocks():
        if block.language != "toml":
            continue
        tables = tomllib.loads(block.text)
        if tables.keys() & {"target", "image"}:
            boards = tmp_path / "boards.toml"
            boards.write_text(block.text)
            try:
                config.load(boards, root=tmp_path)
            except ConfigError as error:
                raise AssertionError(f"{block.where}: {error}") from None
            loaded += 1
    assert loaded > 5


def test_tests_and_files_that_are_named_exist() -> None:
    sources = [*(ROOT / "tests").rglob("*.py"), *EXAMPLES.rglob("*.py")]
    tests = set(re.findall(r"def (test_\w+)", "\n".join(path.read_text() for path in sources)))
    wrong = []
    for page in PAGES:
        for piece in re.findall(r"`((?:tests|scripts|pytest_hil)/[^`\s]+)`", prose(page)):
            if not (ROOT / piece.partition("::")[0]).exists():
                wrong.append((page.name, piece))
        if page.parent.name == "explanation":
            for name in re.findall(r"`(?:[^`\s]*::)?(test_\w+)`", prose(page)):
                wrong += [] if name in tests else [(page.name, name)]
    assert wrong == []


def names(pattern: str, pages: Iterable[Path] = PAGES) -> dict[str, str]:
    """All that matches a pattern, with a page where it does."""
    return {
        found[1]: str(page.relative_to(ROOT))
        for page in pages
        for found in re.finditer(pattern, page.read_text())
    }


def test_options_exist(pytestconfig: pytest.Config) -> None:
    wrong = {}
    for option, page in names(r"(--hil-[a-z]+(?:-[a-z]+)*)").items():
        try:
            pytestconfig.getoption(option)
        except ValueError:
            wrong[option] = page
    assert wrong == {}


def test_ini_names_exist(pytestconfig: pytest.Config) -> None:
    wrong = {}
    for name, page in names(r"(?<![\w.])(hil_(?!gcov)[a-z_]*[a-z])").items():
        try:
            if name not in {*FIXTURES, "hil_usb", "hil_crash"}:
                pytestconfig.getini(name)
        except (KeyError, ValueError):
            wrong[name] = page
    assert wrong == {}


def test_marker_keys_exist() -> None:
    calls = names(r"mark\.hil\(([^)]*)\)(?!: there is no such key)")
    assert calls
    used = {
        key: page
        for call, page in calls.items()
        for key in re.findall(r"(\w+)\s*=", re.sub(r'"[^"]*"', "", call))
    }
    assert {key: page for key, page in used.items() if key not in marker.KEYS} == {}


def test_variables_exist() -> None:
    source = "\n".join(path.read_text() for path in (ROOT / "pytest_hil").rglob("*.py"))
    found = names(r"\b(PYTEST_HIL_[A-Z_]+)")
    assert {name: page for name, page in found.items() if name not in source} == {}


@cache
def parser_of(verb: str) -> argparse.ArgumentParser:
    subparsers = argparse.ArgumentParser().add_subparsers()
    made = import_module(VERBS[verb].module).add_parser(subparsers)
    assert isinstance(made, argparse.ArgumentParser)
    return made


def problems(command: str) -> Iterator[str]:
    """What is wrong with ``pytest-hil``'s words and options in a line of documentation."""
    words = re.sub(r"[\[\]]", " ", command.partition(" -- ")[0].partition("  ")[0]).split()
    verb = words.pop(0)
    if verb not in VERBS:
        yield f"there is no verb {verb}"
        return
    parsers = [parser_of(verb)]
    for action in parsers[0]._actions:
        if isinstance(action, argparse._SubParsersAction) and words and words[0][0].isalpha():
            for name in words.pop(0).split("|"):
                if name in action.choices:
                    parsers.append(action.choices[name])
                else:
                    yield f"{verb} has no {name}"
    known = {option for parser in parsers for option in parser._option_string_actions}
    for option in re.findall(r"(?<=\s)--[a-z][a-z0-9-]*", " " + " ".join(words)):
        if option not in known:
            yield f"{verb} has no {option}"


COMMAND = re.compile(r"(?<![\w/-])pytest-hil ([a-z]+\b[^`]*)")


def test_commands_exist() -> None:
    found = [
        (page.name, command[1])
        for page in PAGES
        for line in code(page)
        for command in COMMAND.finditer(line)
    ]
    assert len(found) > 20
    wrong = [(page, line, list(problems(line))) for page, line in found]
    assert [each for each in wrong if each[2]] == []


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("image build --refresh", ""),
        ("image build|list", ""),
        ("vm run trial -- ls --color", ""),
        ("artifacts clean [--keep N]", ""),
        ("imgae list", "no verb imgae"),
        ("image bild", "no bild"),
        ("open TEST --console", "no --console"),
    ],
)
def test_wrong_commands_are_seen(line: str, problem: str) -> None:
    assert problem in "; ".join(problems(line))
    assert bool(problem) == bool(list(problems(line)))


def test_every_key_of_a_boards_usb_is_documented() -> None:
    from pytest_hil.config.driver import keys
    from pytest_hil.config.usb import BoardUsb

    text = (ROOT / "docs" / "reference" / "boards-toml.md").read_text()
    part = text.partition("\n`usb`:\n")[2].partition("\n## ")[0].partition("\n### ")[0]
    assert re.findall(r"^\| `(\w+)` \|", part, re.MULTILINE) == [one.name for one in keys(BoardUsb)]


@pytest.mark.parametrize("kind", ["boot", "console", "power", "shell"])
def test_every_driver_and_its_keys_are_documented(kind: str) -> None:
    from pytest_hil.board import drivers
    from pytest_hil.config.driver import Section, keys

    text = (ROOT / "docs" / "reference" / "drivers.md").read_text()
    part = text.partition(f"\n## `{kind}`\n")[2].partition("\n## ")[0]
    for name in filter(partial(drivers.is_ours, kind), drivers.names(kind)):
        own = part.partition(f"\n### `{name}`\n")[2].partition("\n### ")[0]
        assert "Tried against: " in own, name
        wanted = {one.name for one in keys(drivers.options(kind, Section("", "", name)))}
        assert set(re.findall(r"^\| `(\w+)` \|", own, re.MULTILINE)) == wanted, name
