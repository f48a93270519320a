"""boards.toml's JSON schema: it says what the checker says."""

from __future__ import annotations

import copy
import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from pytest_hil.board import drivers
from pytest_hil.board.check import check
from pytest_hil.board.schema import boards_schema
from pytest_hil.config import BoardTarget, driver, load, values
from pytest_hil.errors import ConfigError
from pytest_hil.rig.rig import _toml_value

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
FILES = sorted((ROOT / "docs").rglob("boards.toml"))
TABLES = {"target", "group", "image", "lab"}

BOARD = """
[target.b]
backend = "board"
console = {driver = "tcp", address = "lab:4001"}
"""


@pytest.fixture(scope="module")
def validator() -> jsonschema.Draft7Validator:
    schema = boards_schema()
    jsonschema.Draft7Validator.check_schema(schema)
    return jsonschema.Draft7Validator(schema)


def refused(text: str, directory: Path) -> str:
    """What the checker says is wrong."""
    (directory / "boards.toml").write_text(text)
    try:
        config = load(None, root=directory)
        for one in config.targets.values():
            if isinstance(one, BoardTarget):
                check(one)
    except ConfigError as error:
        return str(error)
    return ""


def examples() -> Iterator[tuple[str, str]]:
    for path in FILES:
        yield path.name, path.read_text()
    for page in PAGES:
        for block in re.findall(r"^```toml\n(.*?)^```", page.read_text(), re.M | re.S):
            if tomllib.loads(block).keys() & TABLES:
                yield page.name, block


def written(document: Mapping[str, Any]) -> str:
    """As TOML."""
    lines = []
    for kind, named in document.items():
        if kind == "lab":
            named = {"": named}
        for name, table in named.items():
            lines.append(f'[{kind}."{name}"]' if name else f"[{kind}]")
            lines += [f'"{key}" = {_toml_value(value)}' for key, value in table.items()]
    return "\n".join(lines)


def spoiled(value: Any, where: str = "") -> Iterator[tuple[str, Any]]:
    """The same with one thing wrong in it: another kind of value, or a key that there is not; and
    what is wrong with what.
    """
    if isinstance(value, dict):
        where += f".{value.get('driver', '')}{value.get('kind', '')}{value.get('backend', '')}"
        yield f"{where} key", {**value, "surely_not_known": 1}
        for key in value:
            for what, other in spoiled(value[key], f"{where}.{key}"):
                yield what, {**value, key: other}
    elif isinstance(value, list):
        yield f"{where} table", {"surely_not_known": 1}
        for place, one in enumerate(value):
            for what, other in spoiled(one, f"{where}[]"):
                yield what, [*value[:place], other, *value[place + 1 :]]
    else:
        yield f"{where} table", {"surely_not_known": {}}
        yield f"{where} array", [[]]
        number = isinstance(value, int | float) and not isinstance(value, bool)
        yield f"{where} scalar", True if number else 1.25


def test_every_example_is_right_to_both(
    validator: jsonschema.Draft7Validator, tmp_path: Path
) -> None:
    seen = 0
    for where, text in examples():
        assert refused(text, tmp_path) == "", where
        validator.validate(tomllib.loads(text))
        seen += 1
    assert seen > 10


def test_every_spoiled_example_is_wrong_to_both(
    validator: jsonschema.Draft7Validator, tmp_path: Path
) -> None:
    seen = set()
    for where, text in examples():
        document = tomllib.loads(text)
        for kind, named in document.items():
            # What is in a group is right or wrong in the targets that are of it.
            for name in named if kind in ("target", "image") else ():
                for what, other in spoiled(named[name], kind):
                    if what in seen:
                        continue
                    seen.add(what)
                    wrong = copy.deepcopy(document)
                    wrong[kind][name] = other
                    told = refused(written(wrong), tmp_path)
                    assert told, (where, what, wrong)
                    assert not validator.is_valid(wrong), (where, what, wrong, told)
    assert len(seen) > 100


@pytest.mark.parametrize(
    ("text", "right"),
    [
        (BOARD, True),
        (BOARD + 'power = "manual"\n', True),
        (BOARD + 'power = "tasmota"\n', False),  # it needs a url
        (BOARD + 'power = {driver = "manual"}\nreset = {driver = "manual"}\n', True),
        (BOARD + 'power = {driver = "tasmota", url = "plug", relay = 33}\n', False),
        (BOARD + 'power = {driver = "tasmota", url = "plug", retries = 3}\n', True),
        (BOARD + 'power = {driver = "tasmota", url = "plug", password = "x"}\n', False),
        (BOARD + 'power = {driver = "tasmota", url = "plug", password = {env = "X"}}\n', True),
        (BOARD + 'power = {driver = "snmp", host = "pdu", model = "apc", community = "c"}', True),
        (BOARD + 'power = {driver = "snmp", host = "pdu", model = "apx"}', False),
        (BOARD + 'boot = "login"\n', True),
        (BOARD + 'boot = ["u-boot", {driver = "login", timeout = 30}]\n', True),
        (BOARD + 'boot = ["u-bot"]\n', False),
        (BOARD + 'shell = {driver = "ssh"}\n', False),
        (BOARD + 'shell = {driver = "ssh", host = "b"}\n', True),
        (BOARD + 'usb = {address = "10.0.0.1", allow = ["10.0.0.7", "*"], port = 0}\n', True),
        (BOARD + 'usb = {allow = ["10.0.0.7"]}\n', False),
        (BOARD + 'usb = {address = "10.0.0.1", allow = ["10.0.0.7"], hosts = []}\n', False),
        (BOARD + 'between = "never"\n', False),
        (BOARD + 'memory = "1G"\n', False),
        ('[target.b]\nbackend = "board"\n', False),
        ('[target.m]\nbackend = "qemu"\nmemory = "1G"\nforwards = [22, "53/udp"]\n', True),
        ('[target.m]\nbackend = "qemu"\nmemory = "much"\n', False),
        ('[target.m]\nmemory = "1G"\n', False),
        ('[group.g]\nbackend = "qemu"\n[target.m]\ngroup = "g"\n', True),
        ('[target."-x"]\nbackend = "qemu"\n', False),
        ('[image.i]\nkind = "url"\nkernel = {url = "https://x/y"}\n', False),
        ("[targets.x]\n", False),
    ],
)
def test_one_by_one(
    validator: jsonschema.Draft7Validator, tmp_path: Path, text: str, right: bool
) -> None:
    assert validator.is_valid(tomllib.loads(text)) is right
    assert (refused(text, tmp_path) == "") is right


def test_each_key_of_each_driver_is_told(validator: jsonschema.Draft7Validator) -> None:
    """With its help, and of a kind that is not just anything."""
    schema: Any = validator.schema
    definitions = schema["definitions"]
    seen = 0
    for kind in drivers.BUILTIN:
        for name in drivers.BUILTIN[kind]:
            for key, one in definitions[f"{kind}.{name}"]["properties"].items():
                assert key == "driver" or one["description"], (kind, name, key)
                assert one.keys() & {"type", "enum", "const", "anyOf"}, (kind, name, key)
                seen += 1
    assert seen > 100


def test_another_packages_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    import dataclasses

    @dataclasses.dataclass(frozen=True)
    class LampOptions:
        bulb: int = driver.key(driver.count(1, 9), help="which bulb")
        colour: str = driver.key(values.text, default="red", help="its colour")

    class Lamp:
        Options = LampOptions

    module = type(sys)("hil_lamp")
    module.Lamp = Lamp  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "hil_lamp", module)
    found = {
        "lamp": EntryPoint("lamp", "hil_lamp:Lamp", "pytest_hil.power"),
        "gone": EntryPoint("gone", "hil_gone:Gone", "pytest_hil.power"),
    }
    monkeypatch.setattr(drivers, "_others", lambda kind: found if kind == "power" else {})
    validator = jsonschema.Draft7Validator(boards_schema())
    for power, right in (
        ('{driver = "lamp", bulb = 3}', True),
        ('{driver = "lamp", bulb = 3, retries = 1}', True),
        ('{driver = "lamp", bulb = 10}', False),
        ('{driver = "lamp"}', False),
        ('{driver = "gone", whatever = 1}', True),
        ('{driver = "lmap"}', False),
    ):
        assert validator.is_valid(tomllib.loads(f"{BOARD}power = {power}")) is right, power


def test_the_verb_prints_it() -> None:
    argv = [sys.executable, "-m", "pytest_hil.cli.main", "boards", "schema"]
    done = subprocess.run(argv, capture_output=True, text=True, check=True, timeout=60, cwd=ROOT)
    assert json.loads(done.stdout) == boards_schema()
