"""Files and trees, through the real agent and from a hostile one."""

from __future__ import annotations

import os
import signal
import socket
import stat
import struct
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from zlib import crc32

import pytest

from pytest_hil.agent import protocol
from pytest_hil.agent.frames import Decoder, FrameType, pack
from pytest_hil.agent.protocol import Entry, FileEnd, HelloOk
from pytest_hil.errors import HilError, OutcomeUnknown, ProtocolError, TransferError
from pytest_hil.process import Process
from pytest_hil.shell import agent_get, agent_put
from pytest_hil.shell.agent import AgentShell

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


def make_tree(root: Path) -> None:
    """Some of everything that a tree may have."""
    (root / "empty directory").mkdir(parents=True)
    (root / "a" / "b").mkdir(parents=True)
    (root / "a" / "b" / "file").write_bytes(os.urandom(200_000))
    (root / "a" / "run").write_text("#!/bin/sh\n")
    (root / "a" / "run").chmod(0o750)
    (root / "empty").touch()
    (root / "ümläut").write_text("ü")
    (root / os.fsdecode(b"not-utf8-\xff")).write_text("x")
    (root / "relative").symlink_to("a/run")
    (root / "dangling").symlink_to("/no/such")
    (root / "to-directory").symlink_to("a")
    (root / "a").chmod(0o750)
    os.utime(root / "a" / "run", ns=(10**18, 10**18 + 123456789))


def look(root: Path) -> dict[str, object]:
    """All of a tree that a transfer keeps."""
    found: dict[str, object] = {}
    for path in [root, *sorted(root.rglob("*"))]:
        st = path.lstat()
        name = str(path.relative_to(root))
        if path.is_symlink():
            found[name] = ("link", os.readlink(path))  # noqa: PTH115
        else:
            content = b"" if path.is_dir() else path.read_bytes()
            found[name] = (stat.filemode(st.st_mode), st.st_mtime_ns, content)
    return found


class TestPut:
    def test_a_file(self, shell: AgentShell, tmp_path: Path) -> None:
        local, remote = tmp_path / "local", tmp_path / "remote"
        local.write_bytes(os.urandom(1_000_000))
        local.chmod(0o640)
        shell.put(local, str(remote))
        assert look(remote) == look(local)

    def test_its_mode(self, shell: AgentShell, tmp_path: Path) -> None:
        local, remote = tmp_path / "local", tmp_path / "remote"
        local.touch(0o600)
        shell.put(local, str(remote), mode=0o4755)
        assert stat.S_IMODE(remote.stat().st_mode) == 0o4755

    @as_root
    def test_its_owner(self, shell: AgentShell, tmp_path: Path) -> None:
        make_tree(tmp_path / "local")
        shell.put(tmp_path / "local", str(tmp_path / "remote"), owner=(12, 34))
        for path in [tmp_path / "remote", *(tmp_path / "remote").rglob("*")]:
            assert (path.lstat().st_uid, path.lstat().st_gid) == (12, 34)

    def test_replaces_a_file(self, shell: AgentShell, tmp_path: Path) -> None:
        local, remote = tmp_path / "local", tmp_path / "remote"
        local.write_text("new")
        remote.write_text("old")
        shell.put(local, str(remote))
        assert remote.read_text() == "new"

    def test_into_a_directory(self, shell: AgentShell, tmp_path: Path) -> None:
        (tmp_path / "local").write_text("new")
        (tmp_path / "into").mkdir()
        shell.put(tmp_path / "local", f"{tmp_path}/into/")
        assert (tmp_path / "into" / "local").read_text() == "new"

    def test_a_symlink_at_the_top_is_followed(self, shell: AgentShell, tmp_path: Path) -> None:
        (tmp_path / "local").write_text("text")
        (tmp_path / "link").symlink_to("local")
        shell.put(tmp_path / "link", str(tmp_path / "remote"))
        assert not (tmp_path / "remote").is_symlink()
        assert (tmp_path / "remote").read_text() == "text"

    def test_a_tree(self, shell: AgentShell, tmp_path: Path) -> None:
        make_tree(tmp_path / "local")
        shell.put(tmp_path / "local", str(tmp_path / "remote"))
        assert look(tmp_path / "remote") == look(tmp_path / "local")

    def test_a_tree_into_one_that_exists(self, shell: AgentShell, tmp_path: Path) -> None:
        make_tree(tmp_path / "local")
        remote = tmp_path / "remote"
        (remote / "a" / "b").mkdir(parents=True)
        (remote / "a" / "b" / "file").write_text("old")
        (remote / "a" / "b" / "other").write_text("stays")
        shell.put(tmp_path / "local", str(remote))
        assert (remote / "a" / "b" / "other").read_text() == "stays"
        (remote / "a" / "b" / "other").unlink()
        assert look(remote) == look(tmp_path / "local") | {
            name: look(remote)[name] for name in (".", "a", "a/b")
        }
        assert list(tmp_path.glob(".hil*")) == []

    @pytest.mark.parametrize(
        ("local", "remote", "text"),
        [
            ("file", "no-such-directory/x", "No such file or directory"),
            ("file", "tree", "Is a directory"),
            ("file", "file/x", "Not a directory"),
            ("tree", "file", "Not a directory"),
            ("no-such-file", "x", "No such file or directory"),
            ("fifo", "x", "is no file, directory or symlink"),
            ("file", "x" * 300, "Filename too long"),
        ],
    )
    def test_what_failed_is_said(
        self, shell: AgentShell, tmp_path: Path, local: str, remote: str, text: str
    ) -> None:
        (tmp_path / "file").write_text("x")
        make_tree(tmp_path / "tree")
        os.mkfifo(tmp_path / "fifo")
        before = look_names(tmp_path)
        with pytest.raises(TransferError, match=text) as failed:
            shell.put(tmp_path / local, str(tmp_path / remote))
        assert str(tmp_path / local) in failed.value.message
        assert look_names(tmp_path) == before
        assert shell.run("echo on").stdout == "on\n"

    def test_a_refusal_stops_a_large_file_early(self, shell: AgentShell, tmp_path: Path) -> None:
        large = tmp_path / "large"
        with large.open("wb") as file:
            file.truncate(2**40)
        with pytest.raises(TransferError, match="No such file"):
            shell.put(large, "/no/such/x")

    def test_an_agent_that_hangs(
        self, agent: Process, shell: AgentShell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(agent_put, "STALL", 0.2)
        small, large = tmp_path / "small", tmp_path / "large"
        small.touch()
        large.write_bytes(bytes(5_000_000))
        os.kill(agent.pid, signal.SIGSTOP)
        with pytest.raises(OutcomeUnknown, match=r"says nothing for 0\.2 s"):
            shell.put(small, str(tmp_path / "x"))
        with pytest.raises(TransferError, match=r"took nothing for 0\.2 s"):
            shell.put(large, str(tmp_path / "y"))
        os.kill(agent.pid, signal.SIGCONT)
        assert shell.run("echo thawed").stdout == "thawed\n"
        assert not (tmp_path / "y").exists()
        assert list(tmp_path.glob(".hil*")) == []


class TestGet:
    def test_a_file(self, shell: AgentShell, tmp_path: Path) -> None:
        remote, local = tmp_path / "remote", tmp_path / "local"
        remote.write_bytes(os.urandom(3_000_000))
        remote.chmod(0o640)
        shell.get(str(remote), local)
        assert look(local) == look(remote)

    def test_a_tree(self, shell: AgentShell, tmp_path: Path) -> None:
        make_tree(tmp_path / "remote")
        shell.get(f"{tmp_path}/remote/", tmp_path / "local")
        assert look(tmp_path / "local") == look(tmp_path / "remote")

    def test_many_small_files(self, shell: AgentShell, tmp_path: Path) -> None:
        for number in range(3000):
            path = tmp_path / "remote" / str(number % 7) / str(number)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(str(number))
        shell.get(str(tmp_path / "remote"), tmp_path / "local")
        assert look(tmp_path / "local") == look(tmp_path / "remote")

    def test_into_a_directory(self, shell: AgentShell, tmp_path: Path) -> None:
        (tmp_path / "remote").write_text("x")
        (tmp_path / "into").mkdir()
        shell.get(str(tmp_path / "remote"), f"{tmp_path}/into/")
        assert (tmp_path / "into" / "remote").read_text() == "x"

    def test_a_tree_into_one_that_exists(self, shell: AgentShell, tmp_path: Path) -> None:
        make_tree(tmp_path / "remote")
        (tmp_path / "local" / "a").mkdir(parents=True)
        (tmp_path / "local" / "a" / "other").write_text("stays")
        shell.get(str(tmp_path / "remote"), tmp_path / "local")
        assert (tmp_path / "local" / "a" / "other").read_text() == "stays"
        assert (tmp_path / "local" / "a" / "run").exists()

    def test_files_that_have_no_size(self, shell: AgentShell, tmp_path: Path) -> None:
        shell.get("/proc/version", tmp_path / "version")
        assert (tmp_path / "version").read_text() == Path("/proc/version").read_text()

    @pytest.mark.parametrize(
        ("remote", "text"),
        [
            ("no-such-file", "No such file or directory"),
            ("fifo", "is no file, directory or symlink"),
            ("with-fifo", "fifo is no file, directory or symlink"),
            ("x" * 5000, "no name to get"),
        ],
    )
    def test_what_failed_is_said(
        self, shell: AgentShell, tmp_path: Path, remote: str, text: str
    ) -> None:
        os.mkfifo(tmp_path / "fifo")
        (tmp_path / "with-fifo").mkdir()
        (tmp_path / "with-fifo" / "file").touch()
        os.mkfifo(tmp_path / "with-fifo" / "fifo")
        (tmp_path / "local").write_text("old")
        with pytest.raises(TransferError, match=text):
            shell.get(str(tmp_path / remote), tmp_path / "local")
        assert (tmp_path / "local").read_text() == "old"
        assert list(tmp_path.glob(".hil*")) == []

    def test_where_there_is_no_directory(self, shell: AgentShell, tmp_path: Path) -> None:
        with pytest.raises(TransferError, match="No such file or directory"):
            shell.get("/proc/version", tmp_path / "no" / "such")

    def test_an_agent_that_hangs(
        self, agent: Process, shell: AgentShell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(agent_get, "STALL", 0.2)
        os.kill(agent.pid, signal.SIGSTOP)
        with pytest.raises(TransferError, match=r"sent nothing for 0\.2 s"):
            shell.get("/proc/version", tmp_path / "x")
        os.kill(agent.pid, signal.SIGCONT)
        assert list(tmp_path.iterdir()) == []


def test_many_at_once(shell: AgentShell, tmp_path: Path) -> None:
    def there_and_back(number: int) -> None:
        path = tmp_path / f"local{number}"
        path.write_bytes(os.urandom(300_000))
        shell.put(path, str(tmp_path / f"remote{number}"))
        shell.get(str(tmp_path / f"remote{number}"), tmp_path / f"back{number}")
        assert (tmp_path / f"back{number}").read_bytes() == path.read_bytes()

    with ThreadPoolExecutor(10) as pool:
        list(pool.map(there_and_back, range(30)))


def look_names(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*"))


# --- an agent that lies: what it sends is given as a function of the operation's number ---

Lie = Callable[[int], list[bytes]]


def file(number: int, name: str, content: bytes = b"evil") -> bytes:
    return (
        Entry(number, "f", name, 0o644).pack()
        + protocol.data(number, content)
        + FileEnd(number, len(content), crc32(content)).pack()
    )


def directory(number: int, name: str = "") -> bytes:
    return Entry(number, "d", name, 0o755).pack()


def done(number: int, size: int = 4, crcs: bytes = b"") -> bytes:
    return pack(FrameType.DONE, number, struct.pack("<QI", size, crc32(crcs)))


LIES: dict[str, Lie] = {
    "out by ..": lambda n: [directory(n), file(n, "../evil")],
    "out by an absolute name": lambda n: [directory(n), file(n, "/tmp/evil")],
    "out by .. inside": lambda n: [directory(n), directory(n, "a"), file(n, "a/../../evil")],
    "through a symlink": lambda n: [
        directory(n),
        Entry(n, "l", "a", 0, target="..").pack(),
        file(n, "a/evil"),
    ],
    "a symlink as the root": lambda n: [
        Entry(n, "l", "", 0, target="outside").pack(),
        file(n, "evil"),
    ],
    "into a directory that was not sent": lambda n: [directory(n), file(n, "a/evil")],
    "no root": lambda n: [file(n, "evil")],
    "two roots": lambda n: [directory(n), directory(n)],
    "a symlink over a directory": lambda n: [
        directory(n),
        directory(n, "a"),
        Entry(n, "l", "a", 0, target="..").pack(),
        done(n, 0),
    ],
    "the same file twice": lambda n: [directory(n), file(n, "a"), file(n, "a")],
    "an unknown kind": lambda n: [Entry(n, "b", "", 0).pack()],
    "a wrong checksum": lambda n: [
        Entry(n, "f", "", 0o644).pack(),
        protocol.data(n, b"evil"),
        FileEnd(n, 4, 0).pack(),
    ],
    "a file that does not end": lambda n: [Entry(n, "f", "", 0o644).pack(), done(n, 0)],
    "an entry inside a file": lambda n: [Entry(n, "f", "", 0o644).pack(), directory(n, "a")],
    "bytes of no file": lambda n: [protocol.data(n, b"x")],
    "the end of no file": lambda n: [FileEnd(n, 0, 0).pack()],
    "a wrong total": lambda n: [file(n, ""), done(n, 5, crc32(b"evil").to_bytes(4, "little"))],
    "nothing": lambda n: [done(n, 0)],
    "a name that is too long": lambda n: [directory(n), file(n, "x" * 300)],
    "an exit code": lambda n: [pack(FrameType.EXIT, n, bytes(4))],
}


@pytest.mark.parametrize("lie", LIES.values(), ids=LIES.keys())
def test_nothing_that_an_agent_sends_gets_out(lie: Lie, tmp_path: Path) -> None:
    ours, theirs = socket.socketpair()

    def speak() -> None:
        decoder = Decoder()
        while data := theirs.recv(65536):
            for frame in decoder.feed(data):
                if frame.type == FrameType.HELLO:
                    theirs.sendall(HelloOk(frame.payload[:16], 1, "b", "arm").pack())
                elif frame.type == FrameType.GET:
                    theirs.sendall(b"".join(lie(frame.operation)))

    speaker = threading.Thread(target=speak)
    speaker.start()
    (tmp_path / "here").mkdir()
    with theirs:
        with AgentShell(ours, name="liar") as shell:
            shell.hello(5)
            with pytest.raises(HilError) as refused:
                shell.get("/x", tmp_path / "here" / "local")
        assert isinstance(refused.value, TransferError | ProtocolError)
        speaker.join()
    assert look_names(tmp_path) == ["here"]
