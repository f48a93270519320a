"""The Target contract: the same tests for every backend and architecture."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pytest_hil.bench import Bench, Settings
from pytest_hil.errors import (
    CommandFailed,
    CommandTimeout,
    ExpectTimeout,
    OutputTooLarge,
    TransferError,
    Unsupported,
)
from pytest_hil.rig.arm64 import EmulatedBoard
from pytest_hil.rig.rig import Rig
from pytest_hil.target import Target

pytestmark = pytest.mark.machine

ARCHES = ["x86_64", "aarch64"]
# The same emulated board, by its serial line, which is slow, and by SSH.
BOARDS = [pytest.param("rig1", marks=pytest.mark.slow), pytest.param("ssh", marks=pytest.mark.slow)]


@pytest.fixture(scope="module")
def bench_of_machines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    root = tmp_path_factory.mktemp("contract")
    text = "".join(f'[target.{arch}]\nbackend = "qemu"\narch = "{arch}"\n' for arch in ARCHES)
    (root / "boards.toml").write_text(text)
    with Bench(Settings(root=root, accel="tcg", boot_timeout=180)) as made:
        yield made


@pytest.fixture(scope="module")
def bench_of_boards(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    root = tmp_path_factory.mktemp("board")
    with pytest.MonkeyPatch.context() as patch, Rig(boards=1, kinds=("arm64",)) as rig:
        for name, value in rig.environment.items():
            patch.setenv(name, value)
        board = rig.boards[0]
        assert isinstance(board, EmulatedBoard)
        known = f"[127.0.0.1]:{board.ssh.port} {board.ssh.host_key}\n"
        (root / "known_hosts").write_text(known)
        serial = rig.boards_toml.read_text()
        head = serial.partition("shell = ")[0]
        ssh = (
            f'{{driver = "ssh", host = "127.0.0.1", port = {board.ssh.port}, '
            f'identity = "{board.ssh.key}", known_hosts = "known_hosts"}}'
        )
        (root / "boards.toml").write_text(serial + "\n" + _renamed(f"{head}shell = {ssh}\n"))
        with Bench(Settings(root=root, lab=root / "lab")) as made:
            yield made


def _renamed(table: str) -> str:
    return table.replace("[target.rig1]", "[target.ssh]")


@pytest.fixture(params=[*ARCHES, *BOARDS])
def target(request: pytest.FixtureRequest) -> Iterator[Target]:
    which = "bench_of_machines" if request.param in ARCHES else "bench_of_boards"
    bench: Bench = request.getfixturevalue(which)
    made = bench.open(bench.describe(request.param))
    yield made
    made.close()


def test_it_says_what_it_is(target: Target) -> None:
    assert target.arch in target.features
    assert {"console", "power", "shell"} <= target.features
    assert target.run("uname -m").stdout == f"{target.arch}\n"


def test_a_command_gives_both_streams_and_its_exit_code(target: Target) -> None:
    done = target.run("echo out; echo err >&2; exit 3", check=False)
    assert (done.stdout, done.stderr, done.exit_code) == ("out\n", "err\n", 3)
    assert not done.ok
    assert done.duration > 0


def test_a_failing_command_raises_with_what_it_said(target: Target) -> None:
    with pytest.raises(CommandFailed, match="no such thing") as caught:
        target.run("echo no such thing >&2; exit 7")
    assert caught.value.exit_code == 7


def test_a_signal_is_a_negative_exit_code(target: Target) -> None:
    assert target.run("kill -9 $$", check=False).exit_code == -9


def test_an_argv_reaches_the_program_as_it_is(target: Target) -> None:
    assert target.run(["printf", "%s|", "a b", "$HOME", "*"]).stdout == "a b|$HOME|*|"


def test_input_environment_and_directory(target: Target) -> None:
    done = target.run("cat; echo $COLOUR; pwd", input="in\n", env={"COLOUR": "blue"}, cwd="/tmp")
    assert done.stdout == "in\nblue\n/tmp\n"


def test_a_slow_command_is_killed_with_its_children(target: Target) -> None:
    began = time.monotonic()
    with pytest.raises(CommandTimeout, match="begun"):
        target.run("sleep 4321 & ps | grep '[s]leep 4321' && echo begun; sleep 4321", timeout=1)
    assert time.monotonic() - began < 10
    assert target.run("ps | grep '[s]leep 4321'", check=False).stdout == ""


def test_endless_output_ends(target: Target) -> None:
    with pytest.raises(OutputTooLarge, match="1048576"):
        target.run("yes", max_output=2**20)
    assert target.run("echo still here").ok


def test_a_file_there_and_back(target: Target, tmp_path: Path) -> None:
    data = os.urandom(1_000_001)
    (tmp_path / "a").write_bytes(data)
    target.put(tmp_path / "a", "/tmp/a", mode=0o640)
    assert target.run("stat -c %a /tmp/a; sha256sum < /tmp/a").stdout.split() == [
        "640",
        hashlib.sha256(data).hexdigest(),
        "-",
    ]
    target.get("/tmp/a", tmp_path / "b")
    assert (tmp_path / "b").read_bytes() == data


def test_a_directory_there_and_back(target: Target, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "deep" / "er").mkdir(parents=True)
    (tree / "deep" / "er" / "file").write_text("text")
    (tree / "run.sh").write_text("#!/bin/sh\necho ran\n")
    (tree / "run.sh").chmod(0o755)
    (tree / "link").symlink_to("run.sh")
    target.put(tree, "/tmp/tree")
    assert target.run("/tmp/tree/link").stdout == "ran\n"
    target.get("/tmp/tree", tmp_path / "back")
    assert (tmp_path / "back" / "deep" / "er" / "file").read_text() == "text"
    assert (tmp_path / "back" / "link").readlink() == Path("run.sh")
    # Again, onto itself: what is of the same name is replaced, the rest stays.
    target.run("echo own > /tmp/tree/deep/own")
    (tree / "deep" / "er" / "file").write_text("other")
    target.put(tree, "/tmp/tree")
    assert target.run("cat /tmp/tree/deep/er/file /tmp/tree/deep/own").stdout == "otherown\n"
    assert target.run("readlink /tmp/tree/link; ls -A /tmp/tree").stdout.split() == [
        "run.sh",
        *("deep", "link", "run.sh"),
    ]


def test_a_file_that_is_not_there(target: Target, tmp_path: Path) -> None:
    with pytest.raises(TransferError, match="/tmp/nothing"):
        target.get("/tmp/nothing", tmp_path / "x")
    assert not (tmp_path / "x").exists()


def test_the_console_is_a_shell_of_its_own(target: Target) -> None:
    target.console.sendline("echo con$((20+3))sole")
    assert target.console.expect("con23sole", timeout=30).text == "con23sole"
    with pytest.raises(ExpectTimeout, match="never said"):
        target.console.expect("never said", timeout=0.2)


def test_the_console_has_everything_from_the_first_byte(target: Target) -> None:
    if "snapshot" not in target.features:
        target.reset()  # no clone: it may be up since an earlier test
    assert "Linux version" in target.console.text()


def test_a_snapshot_brings_everything_back(target: Target) -> None:
    if "snapshot" not in target.features:
        with pytest.raises(Unsupported, match="snapshot"):
            target.snapshot("here")
        return
    target.run("echo before > /tmp/state")
    saved = target.snapshot("here")
    target.run("echo after > /tmp/state; echo more > /tmp/more")
    target.restore(saved)
    assert target.run("cat /tmp/state").stdout == "before\n"
    assert not target.run("test -e /tmp/more", check=False).ok
    target.run("echo third > /tmp/state")
    target.restore(saved)
    assert target.run("cat /tmp/state").stdout == "before\n"


def test_reset_restarts_it(target: Target) -> None:
    target.run("touch /tmp/mark")
    before = target.run("cat /proc/sys/kernel/random/boot_id").stdout
    target.reset()
    assert target.run("cat /proc/sys/kernel/random/boot_id").stdout != before
    assert not target.run("test -e /tmp/mark", check=False).ok


def test_power(target: Target) -> None:
    assert target.power.read()
    target.power.off()
    assert not target.power.read()
    target.power.off()
    target.power.on()
    assert target.power.read()
    assert target.run("echo on").stdout == "on\n"


def test_close_may_be_called_twice(target: Target) -> None:
    target.close()
    target.close()
