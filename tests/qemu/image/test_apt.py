"""The host's real apt, with a repository of files."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_hil import process
from pytest_hil.errors import ImageError, NoRoom, ToolMissing
from pytest_hil.qemu.image.apt import Apt

if TYPE_CHECKING:
    from tests.qemu.image.conftest import Repository


class Fetch:
    """An Apt on the test's repository, with what it said."""

    def __init__(self, repository: Repository, root: Path) -> None:
        self.said: list[str] = []
        self.apt = Apt(
            root, arch="amd64", progress=self.said.append, sources=repository.sources_list
        )

    def names(self, *wanted: str) -> set[str]:
        self.apt.update()
        return {package.name for package in self.apt.resolve(wanted)}


@pytest.fixture
def fetch(repository: Repository, tmp_path: Path) -> Fetch:
    return Fetch(repository, tmp_path / "state with a space")


def test_all_that_is_needed_is_found_from_nothing(repository: Repository, fetch: Fetch) -> None:
    repository.add("tool", {"a": b""}, depends="lib (>= 1), debconf | debconf-2.0")
    repository.add("lib", {"b": b""}, depends="base")
    repository.add("base", {"c": b""})
    repository.add("unrelated", {"d": b""})

    assert fetch.names("tool") == {"tool", "lib", "base"}


def test_what_scripts_need_is_left_out_unless_it_is_asked_for(
    repository: Repository, fetch: Fetch
) -> None:
    repository.add("kmod", {"a": b""})
    repository.add("tool", {"b": b""}, depends="kmod")

    assert fetch.names("tool") == {"tool"}
    assert fetch.names("tool", "kmod") == {"tool", "kmod"}


def test_packages_are_fetched_once(repository: Repository, fetch: Fetch) -> None:
    package = repository.add("tool", {"a": b"contents"}, version="1:2.0-3")
    fetch.apt.update()
    found = fetch.apt.resolve(["tool"])
    [first] = fetch.apt.fetch(found)
    assert first.read_bytes() == package.read_bytes()
    assert found[0].version == "1:2.0-3"

    package.unlink()
    [second] = fetch.apt.fetch(fetch.apt.resolve(["tool"]))

    assert second == first
    assert any(line.startswith("downloading tool: 0 of 1 MB") for line in fetch.said)


def test_lists_are_fetched_again_only_when_they_are_old(
    repository: Repository, fetch: Fetch
) -> None:
    repository.add("tool", {"a": b""})

    assert fetch.apt.update()
    assert not fetch.apt.update()
    fetch.apt.forget()
    assert fetch.apt.update()


def test_an_unknown_package_is_named_and_the_lists_are_doubted(
    repository: Repository, fetch: Fetch
) -> None:
    repository.add("tool", {"a": b""}, depends="gone")
    fetch.apt.update()

    with pytest.raises(ImageError, match="Unable to locate package nonsense"):
        fetch.apt.resolve(["nonsense"])
    with pytest.raises(ImageError, match="tool : Depends: gone but it is not installable"):
        fetch.apt.resolve(["tool"])
    assert fetch.apt.update()


def test_a_package_that_the_mirror_has_no_more(repository: Repository, fetch: Fetch) -> None:
    repository.add("tool", {"a": b""}).unlink()
    fetch.apt.update()

    with pytest.raises(ImageError, match="could not fetch tool"):
        fetch.apt.fetch(fetch.apt.resolve(["tool"]))


def test_a_package_with_other_contents_than_the_list_says(
    repository: Repository, fetch: Fetch
) -> None:
    package = repository.add("tool", {"a": b""})
    fetch.apt.update()
    package.write_bytes(package.read_bytes()[:-1] + b"!")

    with pytest.raises(ImageError, match="could not fetch tool"):
        fetch.apt.fetch(fetch.apt.resolve(["tool"]))


def test_a_source_that_fails_does_not_matter(repository: Repository, tmp_path: Path) -> None:
    repository.add("tool", {"a": b""})
    broken = "deb http://127.0.0.1:9/nothing here main\n"
    apt = Apt(
        tmp_path / "state",
        arch="amd64",
        progress=lambda _line: None,
        sources=broken + repository.sources_list,
    )
    apt.update()

    assert [package.name for package in apt.resolve(["tool"])] == ["tool"]


def test_no_packages_for_the_architecture(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    apt = Apt(
        tmp_path / "state",
        arch="riscv64",
        progress=lambda _line: None,
        sources=f"deb [trusted=yes] file:{empty} ./\n",
    )
    apt.update()

    with pytest.raises(ImageError, match="no packages for riscv64"):
        apt.resolve(["tool"])


def test_a_mirror_that_says_nothing_is_given_up(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as mirror:
        apt = Apt(
            tmp_path / "state",
            arch="amd64",
            progress=lambda _line: None,
            sources=f"deb http://127.0.0.1:{mirror.getsockname()[1]}/debian stable main\n",
            patience=0.7,
        )
        apt.update()

    with pytest.raises(ImageError, match="no packages for amd64") as raised:
        apt.resolve(["tool"])
    assert "E: no progress for 0.7 s" in str(raised.value)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount")
def test_a_full_disk(repository: Repository, tmp_path: Path) -> None:
    repository.add("tool", {"a": os.urandom(600_000)})
    root = tmp_path / "small"
    root.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=500k", "none", str(root)]
    if process.run(mount, check=False).returncode != 0:
        pytest.skip("mounting is not permitted here")
    try:
        fetch = Fetch(repository, root)
        fetch.apt.update()
        with pytest.raises(NoRoom, match="no room for the packages") as raised:
            fetch.apt.fetch(fetch.apt.resolve(["tool"]))
        assert list((root / "archives/partial").iterdir()) == []
    finally:
        process.run(["umount", str(root)])
    assert "PYTEST_HIL_CACHE=DIR" in str(raised.value)


def test_without_apt_it_is_said_what_works(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(ToolMissing, match="your own kernel and initrd"):
        Apt(tmp_path, arch="amd64", progress=lambda _line: None)
