from __future__ import annotations

import stat
from typing import TYPE_CHECKING

import pytest

from pytest_hil.errors import ImageError
from pytest_hil.qemu.image import guest
from pytest_hil.qemu.image.tree import Entry, Tree

if TYPE_CHECKING:
    from tests.qemu.image.conftest import Make


def test_the_applets_are_read_out_of_the_program(make: Make) -> None:
    names = guest.applets(make.BUSYBOX)

    assert names == ["[", "[[", "ash", "cat", "ip", "modprobe", "poweroff", "true"]


def test_a_program_without_applets_is_no_busybox() -> None:
    with pytest.raises(ImageError, match="no table of applets"):
        guest.applets(b"\x7fELF nothing")


def test_a_program_comes_with_its_libraries_and_theirs(make: Make) -> None:
    library = Tree()
    library.file("usr/bin/tool", make.elf(needed=("liba.so.1",), interpreter="/lib64/ld.so"))
    library.file("lib/x86_64-linux-gnu/liba.so.1.5", make.elf(needed=("libb.so",)))
    library.link("lib/x86_64-linux-gnu/liba.so.1", "liba.so.1.5")
    library.file("usr/lib/x86_64-linux-gnu/libb.so", make.elf())
    library.file("usr/lib/x86_64-linux-gnu/other/liba.so.1", b"another's private one")
    library.file("lib/x86_64-linux-gnu/ld.so", make.elf())
    library.link("lib64/ld.so", "/lib/x86_64-linux-gnu/ld.so")
    library.file("usr/lib/x86_64-linux-gnu/unused.so", make.elf())
    tree = Tree()

    guest.add_program(tree, library, "usr/bin/tool", "usr/bin/renamed")

    files = {path for path, entry in tree.items() if stat.S_ISREG(entry.mode)}
    assert files == {
        "usr/bin/renamed",
        "usr/lib/x86_64-linux-gnu/liba.so.1",
        "usr/lib/x86_64-linux-gnu/libb.so",
        "usr/lib64/ld.so",
    }


def test_a_library_that_no_package_has_is_named(make: Make) -> None:
    library = Tree()
    library.file("usr/bin/tool", make.elf(needed=("libgone.so",)))

    with pytest.raises(ImageError, match=r"no library libgone\.so, which usr/bin/tool needs"):
        guest.add_program(Tree(), library, "usr/bin/tool", "usr/bin/tool")


def test_startup_lines_stay_one_word_whatever_is_in_them() -> None:
    tree = guest.base(agent=b"", startup=["echo 'a' \"$b\" \\", "true"], modules=["a", "b"])

    startup = tree.get("etc/hil/startup")
    modules = tree.get("etc/hil/modules")
    assert startup is not None
    assert startup.data.decode() == "step 'echo '\"'\"'a'\"'\"' \"$b\" \\'\nstep true\n"
    assert modules is not None
    assert modules.data == b"a b\n"


def test_documentation_and_translations_stay_out() -> None:
    tree = Tree()
    file = Entry(stat.S_IFREG | 0o644, b"x")
    members = [
        ("usr/share/doc", Entry(stat.S_IFDIR | 0o755)),
        ("usr/share/doc/p/copyright", file),
        ("usr/share/man/man1/p.1.gz", file),
        ("usr/share/locale/de/p.mo", file),
        ("usr/lib/x86_64-linux-gnu/gconv/IBM037.so", file),
        ("usr/share/p/data", file),
        ("./usr/bin/p", file),
    ]

    guest.add_package(tree, members)

    assert {path for path, entry in tree.items() if entry.data == b"x"} == {
        "usr/share/p/data",
        "usr/bin/p",
    }
    assert "usr/share/doc" not in tree


def test_the_consoles_shell_gives_way_to_the_users_programs(make: Make) -> None:
    tree = Tree()
    guest.add_busybox(tree, make.BUSYBOX)
    tree.file("usr/sbin/ip", b"the real one", 0o755)

    guest.add_profile(tree)

    profile = tree.get("etc/profile")
    assert profile is not None
    assert profile.data.decode().splitlines()[1:] == ["alias ip=/usr/sbin/ip"]
