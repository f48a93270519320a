from __future__ import annotations

import contextlib
import errno
import multiprocessing
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest

from pytest_hil import process
from pytest_hil.cache import Cache
from pytest_hil.errors import ImageError, NoRoom


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache")


def fill(folder: Path) -> None:
    (folder / "file").write_text("contents")


def fill_much(folder: Path) -> None:
    (folder / "file").write_bytes(bytes(500_000))


def refuse(folder: Path) -> None:
    raise AssertionError("it is there: nobody must build it")


def left(cache: Cache, kind: str = "image") -> list[str]:
    return sorted(path.name for path in (cache.root / kind).iterdir())


def test_it_is_built_once(cache: Cache) -> None:
    assert cache.get("image", "key") is None

    path = cache.make("image", "key", fill)

    assert path == cache.root / "image" / "key"
    assert (path / "file").read_text() == "contents"
    assert cache.make("image", "key", refuse) == path
    assert cache.get("image", "key") == path
    assert left(cache) == ["key"]


def test_a_failed_build_leaves_nothing(cache: Cache) -> None:
    def fail(folder: Path) -> None:
        fill(folder)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        cache.make("image", "key", fail)

    assert left(cache) == []
    assert cache.get("image", "key") is None


def test_a_directory_without_its_manifest_is_built_again(cache: Cache) -> None:
    path = cache.make("image", "key", fill)
    (path / "manifest.json").unlink()
    (path / "file").write_text("half")
    assert cache.get("image", "key") is None
    assert cache.entries("image") == []

    cache.make("image", "key", fill)

    assert (path / "file").read_text() == "contents"
    assert left(cache) == ["key"]


def test_a_replaced_entry_stays_until_the_new_one_is_there(cache: Cache) -> None:
    path = cache.make("image", "key", fill)

    def fail(folder: Path) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        cache.replace("image", "key", fail)
    assert (path / "file").read_text() == "contents"

    def renew(folder: Path) -> None:
        (folder / "file").write_text("new")

    cache.replace("image", "key", renew)
    assert (path / "file").read_text() == "new"
    assert left(cache) == ["key"]


def test_removing_does_not_disturb_a_reader(cache: Cache) -> None:
    path = cache.make("image", "key", fill)
    with (path / "file").open() as reader:
        assert cache.remove("image", "key")
        assert reader.read() == "contents"

    assert not cache.remove("image", "key")
    assert left(cache) == []


def test_entries_are_listed_the_last_used_first(cache: Cache) -> None:
    for number, key in enumerate(["old", "middle", "new"]):
        path = cache.make("image", key, fill)
        os.utime(path / ".used", (1000 + number, 1000 + number))
    cache.make("other", "key", fill)
    assert [entry.key for entry in cache.entries("image")] == ["new", "middle", "old"]

    cache.make("image", "old", refuse)

    entries = cache.entries("image")
    assert entries[0].key == "old"
    assert abs(entries[0].used - time.time()) < 60
    assert entries[0].size > 0
    assert cache.entries("nothing") == []


def test_what_nobody_uses_is_pruned(cache: Cache) -> None:
    for key, age in (("old", 200), ("new", 50)):
        path = cache.make("image", key, fill)
        then = time.time() - age
        os.utime(path / ".used", (then, then))

    assert [entry.key for entry in cache.prune("image", unused_for=100)] == ["old"]
    assert left(cache) == ["new"]


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", ".hidden", "a\0", "x" * 300])
def test_a_name_cannot_lead_out(cache: Cache, name: str) -> None:
    with pytest.raises(ValueError, match="cannot name a cache entry"):
        cache.make("image", name, refuse)
    with pytest.raises(ValueError, match="cannot name a cache entry"):
        cache.get(name, "key")


def build_slowly(root: Path, started: Path, go_on: Path) -> None:
    """For another process: a build that waits in its midst."""

    def build(folder: Path) -> None:
        fill(folder)
        started.write_text(str(os.getpid()))
        with go_on.open() as stream:  # a FIFO: until somebody writes
            stream.read()

    Cache(root).make("image", "key", build)


@pytest.fixture
def builder(cache: Cache, tmp_path: Path) -> Iterator[tuple[BaseProcess, Path]]:
    """Another process in the midst of a build, and the FIFO that lets it go on."""
    started, go_on = tmp_path / "started", tmp_path / "go_on"
    os.mkfifo(started)
    os.mkfifo(go_on)
    context = multiprocessing.get_context("fork")
    child = context.Process(target=build_slowly, args=(cache.root, started, go_on))
    child.start()
    assert started.read_text() == str(child.pid)
    yield child, go_on
    child.kill()
    child.join()


def test_the_others_wait_for_who_builds(cache: Cache, builder: tuple[BaseProcess, Path]) -> None:
    child, go_on = builder
    said: list[str] = []

    def progress(line: str) -> None:
        said.append(line)
        threading.Thread(target=go_on.write_text, args=("x",)).start()

    path = cache.make("image", "key", refuse, progress=progress)

    assert said == [f"waiting for process {child.pid} to make image/key"]
    assert (path / "file").read_text() == "contents"
    child.join()
    assert left(cache) == ["key"]


def test_a_killed_builder_is_cleaned_up_after(
    cache: Cache, builder: tuple[BaseProcess, Path]
) -> None:
    child, _ = builder
    assert any(name.startswith(".key.tmp-") for name in left(cache))
    child.kill()
    child.join()
    assert cache.get("image", "key") is None

    cache.make("image", "another", fill)

    assert left(cache) == ["another"]
    cache.make("image", "key", fill)
    assert left(cache) == ["another", "key"]


def test_a_living_builder_is_left_alone(cache: Cache, builder: tuple[BaseProcess, Path]) -> None:
    child, go_on = builder

    cache.make("image", "another", fill)
    go_on.write_text("x")
    child.join()

    assert child.exitcode == 0
    assert left(cache) == ["another", "key"]


def test_ctrl_c_ends_the_waiting(cache: Cache, builder: tuple[BaseProcess, Path]) -> None:
    main = threading.main_thread().ident
    assert main is not None

    with pytest.raises(KeyboardInterrupt):
        cache.make(
            "image",
            "key",
            refuse,
            progress=lambda _line: threading.Timer(
                0.05, signal.pthread_kill, (main, signal.SIGINT)
            ).start(),
        )


def test_many_at_once_build_once(cache: Cache, tmp_path: Path) -> None:
    count = tmp_path / "count"
    program = (
        "import sys, pathlib; from pytest_hil.cache import Cache\n"
        "def build(folder):\n"
        f"    with open({str(count)!r}, 'a') as f: f.write('x')\n"
        f"print(Cache(pathlib.Path({str(cache.root)!r})).make('image', 'key', build))\n"
    )
    children = [
        subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) for _ in range(4)
    ]
    said = [child.communicate(timeout=30)[0] for child in children]

    assert count.read_text() == "x"
    assert set(said) == {f"{cache.root}/image/key\n".encode()}
    assert left(cache) == ["key"]


def test_threads_exclude_each_other(cache: Cache) -> None:
    inside: list[str] = []

    def enter() -> None:
        with cache.locked("image", "key"):
            inside.append("in")
            assert inside.count("in") - inside.count("out") == 1
            time.sleep(0.001)
            inside.append("out")

    threads = [threading.Thread(target=enter) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert inside == ["in", "out"] * 8


@contextlib.contextmanager
def as_nobody() -> Iterator[None]:
    """Root may write anywhere: be somebody else meanwhile."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def open_path(tmp_path: Path) -> Iterator[None]:
    """Lets everybody through to tmp_path."""
    changed = [path for path in (tmp_path, *tmp_path.parents) if not path.stat().st_mode & 0o001]
    for path in changed:
        path.chmod(path.stat().st_mode | 0o011)
    yield
    for path in changed:
        path.chmod(path.stat().st_mode & ~0o011)


def test_a_read_only_cache_can_be_used(cache: Cache, open_path: None) -> None:
    path = cache.make("image", "key", fill)
    (path / ".used").unlink()
    for folder in (path, path.parent, cache.root):
        folder.chmod(0o555)
    try:
        with as_nobody():
            assert cache.make("image", "key", refuse) == path
            with pytest.raises(ImageError, match="cannot be written") as raised:
                cache.make("image", "other", refuse)
            with pytest.raises(ImageError, match="cannot be written"):
                cache.remove("image", "key")
    finally:
        for folder in (path, path.parent, cache.root):
            folder.chmod(0o755)
    assert str(cache.root) in str(raised.value)
    assert "PYTEST_HIL_CACHE=DIR" in str(raised.value)


def test_a_cache_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("")

    with pytest.raises(ImageError, match="cannot be written"):
        Cache(tmp_path / "cache").make("image", "key", refuse)


def test_a_full_disk(cache: Cache) -> None:
    def build(folder: Path) -> None:
        fill(folder)
        with Path("/dev/full").open("w") as full:
            full.write("x")

    with pytest.raises(NoRoom, match=f"no room in the cache {cache.root}: No space") as raised:
        cache.make("image", "key", build)
    assert "PYTEST_HIL_CACHE=DIR" in str(raised.value)
    assert left(cache) == []


def test_a_file_that_may_not_grow(cache: Cache) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(NoRoom):
            cache.make("image", "key", fill_much)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert left(cache) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount")
def test_a_really_full_disk(tmp_path: Path) -> None:
    root = tmp_path / "small"
    root.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=200k", "none", str(root)]
    if process.run(mount, check=False).returncode != 0:
        pytest.skip("mounting is not permitted here")
    try:
        cache = Cache(root)
        with pytest.raises(NoRoom):
            cache.make("image", "key", fill_much)
        assert left(cache) == []
        cache.make("image", "key", fill)
    finally:
        process.run(["umount", str(root)])


def test_other_errors_pass_through(cache: Cache) -> None:
    def build(folder: Path) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", "/somewhere/else")

    with pytest.raises(PermissionError):
        cache.make("image", "key", build)


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"PYTEST_HIL_CACHE": "/a/b"}, "/a/b"),
        ({"PYTEST_HIL_CACHE": "", "XDG_CACHE_HOME": "/x"}, "/x/pytest-hil"),
        ({"XDG_CACHE_HOME": "relative"}, "/users/me/.cache/pytest-hil"),
        ({}, "/users/me/.cache/pytest-hil"),
    ],
)
def test_where_it_is(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], expected: str
) -> None:
    for name in ("PYTEST_HIL_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"HOME": "/users/me", **environment}.items():
        monkeypatch.setenv(name, value)

    assert Cache.default().root == Path(expected)
