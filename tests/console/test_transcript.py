"""What is on disk: as it happens, whatever happens."""

from __future__ import annotations

import base64
import errno
import json
import os
import signal
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_hil.console.transcript import Transcript

if TYPE_CHECKING:
    from tests.console.conftest import Connect, Line


def lines(directory: Path) -> list[dict[str, Any]]:
    text = (directory / "console.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


def said(directory: Path) -> bytes:
    """The bytes that console.jsonl tells of."""
    return b"".join(
        base64.b64decode(line["base64"]) if "base64" in line else line["data"].encode()
        for line in lines(directory)
    )


def log(directory: Path) -> bytes:
    return (directory / "console.log").read_bytes()


def test_it_begins_with_the_first_byte(line: Line, tmp_path: Path) -> None:
    line.says(b"before the recording\r\n")
    line.console.record(tmp_path / "a")
    line.says(b"\x1b[1mand after\xff")
    # No close, no flush: what the console has heard is on disk.
    assert log(tmp_path / "a") == b"before the recording\r\n\x1b[1mand after\xff"
    assert said(tmp_path / "a") == log(tmp_path / "a")
    first, *others = lines(tmp_path / "a")
    assert first["wall"].endswith("+00:00")
    assert first["console"] == "dut"
    assert not any("wall" in other for other in others)
    times = [other["t"] for other in others]
    assert first["t"] == 0 < times[0] < times[-1] < 60
    assert times == sorted(times)
    opened = datetime.fromisoformat(first["wall"])
    assert timedelta(0) <= datetime.now(UTC) - opened < timedelta(seconds=60)


def test_what_was_inherited_is_marked(connect: Connect, tmp_path: Path) -> None:
    line = connect(history=b"template\n")
    line.says(b"clone\n")
    line.console.record(tmp_path)
    assert log(tmp_path) == b"template\nclone\n"
    told = [(entry["data"], entry.get("inherited", False)) for entry in lines(tmp_path)[1:]]
    assert told == [("template\n", True), ("clone\n", False)]


def test_the_next_test_gets_what_the_last_one_has_not(line: Line, tmp_path: Path) -> None:
    line.says(b"one ")
    line.console.record(tmp_path / "first")
    line.says(b"two ")
    line.console.record(tmp_path / "second")
    line.says(b"three ")
    line.console.record(None)
    line.says(b"four ")
    line.console.record(tmp_path / "third")
    line.says(b"five")
    assert log(tmp_path / "first") == b"one two "
    assert log(tmp_path / "second") == b"three "
    assert log(tmp_path / "third") == b"four five"


def test_what_was_lost_before_the_recording_is_noted(connect: Connect, tmp_path: Path) -> None:
    line = connect(keep=4096)
    for _ in range(20):
        line.says(b"x" * 1024)
    line.console.record(tmp_path)
    left_out = sum(entry.get("left_out", 0) for entry in lines(tmp_path))
    assert left_out > 0
    assert left_out + len(log(tmp_path)) == 20 * 1024


def test_everything_is_on_disk_though_memory_forgot_it(connect: Connect, tmp_path: Path) -> None:
    line = connect(keep=4096)
    line.console.record(tmp_path)
    for number in range(100):
        line.says(b"%01023d\n" % number)
    assert len(log(tmp_path)) == 100 * 1024
    assert "console.log has them" in line.console.text().splitlines()[0]


@given(st.lists(st.binary(max_size=8) | st.text(max_size=4).map(str.encode), max_size=10))
@settings(deadline=None)
def test_both_files_tell_the_same(tmp_path_factory: Any, pieces: list[bytes]) -> None:
    directory = tmp_path_factory.mktemp("t")
    transcript = Transcript(directory, name="x", t=0.0)
    for number, piece in enumerate(pieces):
        transcript.write(float(number), piece)
    transcript.close()
    transcript.close()
    assert log(directory) == said(directory) == b"".join(pieces)


def test_a_cut_character_is_not_base64(tmp_path: Path) -> None:
    transcript = Transcript(tmp_path, name="x", t=0.0)
    for byte in "a🙂b".encode():
        transcript.write(0.0, bytes([byte]))
    transcript.close()
    assert [entry["data"] for entry in lines(tmp_path)] == ["", "a", "🙂", "b"]


def test_a_directory_that_cannot_be_made_ends_nothing(line: Line, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    line.console.record(tmp_path / "file" / "test")
    line.says(b"goes on")
    assert line.console.expect("goes on")
    error = line.console.transcript_error
    assert error is not None
    assert error.errno == errno.ENOTDIR


def test_a_full_disk_is_remembered_and_the_reader_goes_on(tmp_path: Path) -> None:
    """A file-size limit stands for the full disk: the same failing write, without root."""
    child = """
        import resource, signal, socket, sys
        from pathlib import Path
        from pytest_hil.console.session import Console
        from pytest_hil.console.transport import SocketTransport
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
        ours, theirs = socket.socketpair()
        console = Console(SocketTransport(ours), name="dut")
        console.record(Path(sys.argv[1]))
        assert console.transcript_error is None
        theirs.sendall(b"x" * 5000 + b"first")
        console.expect("first", timeout=10)
        theirs.sendall(b"second")
        console.expect("second", timeout=10)
        assert len(console.text()) == 5011
        console.record(None)
        print(console.transcript_error.errno)
        console.close()
    """
    assert int(run_child(child, tmp_path)) == errno.EFBIG
    assert log(tmp_path) == b"x" * 4096


def test_a_killed_writer_leaves_a_readable_transcript(tmp_path: Path) -> None:
    child = """
        import os, signal, socket, sys
        from pathlib import Path
        from pytest_hil.console.session import Console
        from pytest_hil.console.transport import SocketTransport
        ours, theirs = socket.socketpair()
        console = Console(SocketTransport(ours), name="dut")
        console.record(Path(sys.argv[1]))
        theirs.sendall(b"everything until now\\n")
        console.expect("now\\n", timeout=10)
        os.kill(os.getpid(), signal.SIGKILL)
    """
    run_child(child, tmp_path, exit_code=-signal.SIGKILL)
    assert log(tmp_path) == b"everything until now\n"
    assert said(tmp_path) == log(tmp_path)


def run_child(code: str, argument: Path, *, exit_code: int = 0) -> str:
    unindented = "\n".join(line[8:] for line in code.splitlines())
    done = subprocess.run(
        # -B: a limit on the size of files would cut a module's bytecode short, for all others too.
        [sys.executable, "-B", "-c", unindented, str(argument)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    assert done.returncode == exit_code, done.stderr
    return done.stdout
