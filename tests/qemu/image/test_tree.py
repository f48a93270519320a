from __future__ import annotations

import stat

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_hil.errors import ImageError
from pytest_hil.qemu.image.tree import Entry, Tree, normal


def test_old_and_new_places_are_one() -> None:
    tree = Tree()
    tree.file("bin/ls", b"old")
    tree.file("usr/bin/ls", b"new")

    assert dict(tree.items())["usr/bin/ls"].data == b"new"
    assert "bin/ls" not in dict(tree.items())
    assert tree.get("/bin/ls") == tree.get("usr/bin/ls")


def test_merged_directories_are_links_that_exist_only_when_used() -> None:
    tree = Tree()
    assert "lib64" not in dict(tree.items())

    tree.file("lib64/ld.so", b"")

    assert dict(tree.items())["lib64"] == Entry(stat.S_IFLNK | 0o777, b"usr/lib64")
    assert dict(tree.items())["usr/lib64"].mode == stat.S_IFDIR | 0o755


def test_a_package_that_brings_the_link_itself_changes_nothing() -> None:
    tree = Tree()
    tree.file("bin/ls", b"")
    tree.link("bin", "usr/bin")
    tree.directory("bin")

    assert dict(tree.items())["bin"].data == b"usr/bin"


def test_parents_come_before_what_is_in_them() -> None:
    tree = Tree()
    tree.file("a/b/c", b"")
    paths = [path for path, _ in tree.items()]

    assert paths.index("a") < paths.index("a/b") < paths.index("a/b/c")


def test_a_directory_never_replaces_a_link() -> None:
    tree = Tree()
    tree.link("var/run", "/run")
    tree.directory("var/run")

    assert stat.S_ISLNK(dict(tree.items())["var/run"].mode)


def test_a_file_where_a_directory_must_be_is_an_error() -> None:
    tree = Tree()
    tree.file("a", b"")

    with pytest.raises(ImageError, match=r"/a/b cannot be in the image: /a is no directory"):
        tree.file("a/b", b"")


def test_links_are_followed() -> None:
    tree = Tree()
    tree.file("usr/lib/libx.so.1.2", b"x")
    tree.link("usr/lib/libx.so.1", "libx.so.1.2")
    tree.link("usr/lib/libx.so", "/lib/libx.so.1")
    tree.link("loop", "loop")

    assert tree.real("lib/libx.so") == "usr/lib/libx.so.1.2"
    assert tree.real("loop") is None
    assert tree.real("missing") is None


def test_size_is_in_whole_pages() -> None:
    tree = Tree()
    links = tree.size
    tree.file("a", bytes(1))
    tree.file("b", bytes(4097))
    tree.file("c", b"")

    assert tree.size - links == 3 * 4096


@given(st.text(st.sampled_from("./a"), max_size=20))
def test_no_path_leads_out(path: str) -> None:
    parts = normal(path).split("/")

    assert ".." not in parts
    assert parts[0] != "" or parts == ["."]
