"""The records of machines started by hand: names, lives and deaths."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_hil.cli.started import record
from pytest_hil.errors import ConfigError

if TYPE_CHECKING:
    from tests.cli.conftest import Cli

CLAIM_AND_WAIT = """
import sys
from pytest_hil.cli.started import record
record.claim(sys.argv[1], "qemu").write(state="ready", qemu=1)
print("claimed", flush=True)
sys.stdin.read()
"""


def claimed_by_a_process_that_is_killed(cli: Cli, name: str) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", CLAIM_AND_WAIT, name],
        env=cli.env,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"claimed\n"
        assert record.find(name).state == "ready"
        child.kill()


def test_names_are_given_and_taken_once(cli: Cli) -> None:
    with ThreadPoolExecutor(8) as pool:
        names = list(pool.map(lambda _: record.claim("", "qemu").name, range(8)))
    assert sorted(names) == [f"qemu-{n}" for n in range(1, 9)]
    with pytest.raises(ConfigError, match="there is a machine 'qemu-1' already"):
        record.claim("qemu-1", "qemu")
    record.forget(record.find("qemu-2"))
    assert record.claim("", "qemu").name == "qemu-2"
    for one in record.records():
        record.forget(one)
    assert record.records() == []


@pytest.mark.parametrize("name", ["../x", "a/b", "-x", ".x", "x" * 65, "a b"])
def test_a_name_is_no_path(cli: Cli, name: str) -> None:
    with pytest.raises(ConfigError, match="cannot be a name"):
        record.claim(name, "qemu")


def test_a_killed_server_is_known_and_its_name_is_free_again(cli: Cli) -> None:
    claimed_by_a_process_that_is_killed(cli, "mine")
    found = record.find("mine")
    assert found.state == "died"
    assert "was killed" in found.why
    assert cli("vm", "list").stdout.rstrip().endswith(f"mine died: {found.why}")
    assert "mine died" in cli.error("vm", "run", "mine", "true", code=1)
    mine = record.claim("mine", "qemu")
    # What was seen of the old one no longer matters to the new one.
    record.forget(found)
    assert record.find("mine") == mine
    record.forget(mine)


def test_a_half_made_record_is_none(cli: Cli, runtime_dir: Path) -> None:
    assert record.records() == []
    (runtime_dir / "vm" / "half").mkdir()
    (runtime_dir / "vm" / "half" / "record.json").write_text('{"name": "ha')
    assert record.records() == []
    assert list((runtime_dir / "vm").iterdir()) == [runtime_dir / "vm" / ".lock"]
