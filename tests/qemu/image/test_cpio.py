from __future__ import annotations

import stat
import subprocess
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from pytest_hil.qemu.image import cpio
from pytest_hil.qemu.image.tree import Entry


def read(archive: bytes) -> list[tuple[str, Entry, int, int]]:
    """(path, entry, inode, links) of each member, by the kernel's description of the format."""
    found: list[tuple[str, Entry, int, int]] = []
    at = 0
    while True:
        assert archive[at : at + 6] == b"070701"
        fields = [int(archive[i : i + 8], 16) for i in range(at + 6, at + 110, 8)]
        inode, mode, uid, gid, links, mtime, size, _, _, major, minor, name_size, check = fields
        assert mtime == 0
        assert check == 0
        name = archive[at + 110 : at + 110 + name_size]
        assert name.endswith(b"\0")
        at += -(-(110 + name_size) // 4) * 4
        data = archive[at : at + size]
        at += -(-size // 4) * 4
        if name == b"TRAILER!!!\0":
            assert at == len(archive)
            return found
        entry = Entry(mode, data, uid, gid, (major, minor))
        found.append((name[:-1].decode(), entry, inode, links))


paths = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=40)
ids = st.integers(0, 2**32 - 1)
entries = st.builds(
    Entry,
    mode=st.sampled_from([0o100644, 0o100755, 0o040755, 0o120777, 0o020600]),
    data=st.binary(max_size=50),
    uid=ids,
    gid=ids,
    device=st.tuples(st.integers(0, 4095), st.integers(0, 2**20 - 1)),
)


@given(st.lists(st.tuples(paths.filter(lambda p: p != "TRAILER!!!"), entries), max_size=6))
def test_what_is_written_is_read_again(members: list[tuple[str, Entry]]) -> None:
    found = read(cpio.archive(members))

    assert [(path, entry) for path, entry, _, _ in found] == members
    inodes = [inode for _, _, inode, _ in found]
    assert len(set(inodes)) == len(inodes)


def test_directories_have_two_links() -> None:
    [(_, _, _, links)] = read(cpio.archive([("d", Entry(stat.S_IFDIR | 0o755))]))

    assert links == 2


def test_the_empty_archive_is_only_its_trailer() -> None:
    assert read(cpio.archive([])) == []


def test_others_read_it(tmp_path: Path) -> None:
    members = [
        ("dir", Entry(stat.S_IFDIR | 0o750)),
        ("dir/file", Entry(stat.S_IFREG | 0o640, b"contents")),
        ("dir/link", Entry(stat.S_IFLNK | 0o777, b"file")),
    ]

    subprocess.run(["cpio", "-i", "--quiet"], input=cpio.archive(members), cwd=tmp_path, check=True)

    assert (tmp_path / "dir/link").read_bytes() == b"contents"
    assert stat.S_IMODE((tmp_path / "dir/file").stat().st_mode) == 0o640
