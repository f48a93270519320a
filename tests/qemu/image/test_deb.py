from __future__ import annotations

import contextlib
import io
import os
import stat
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_hil import process
from pytest_hil.errors import ImageError
from pytest_hil.qemu.image import deb
from pytest_hil.qemu.image.tree import Entry

if TYPE_CHECKING:
    from tests.qemu.image.conftest import Repository


def test_files_links_and_modes_come_out_and_no_script_runs(repository: Repository) -> None:
    package = repository.add("p", {"usr/bin/tool": b"contents", "usr/bin/alias": "tool"})

    found = dict(deb.members(package))

    assert found["usr/bin/tool"] == Entry(stat.S_IFREG | 0o755, b"contents")
    assert found["usr/bin/alias"].data == b"tool"
    assert stat.S_ISDIR(found["usr/bin"].mode)
    assert not any("postinst" in path for path in found)


def test_only_what_is_wanted_is_read(repository: Repository) -> None:
    package = repository.add("p", {"a": b"1", "b": b"2"})

    assert [path for path, _ in deb.members(package, wanted=lambda p: p == "b")] == ["b"]


@pytest.mark.parametrize("damage", ["cut", "nonsense"])
def test_a_damaged_package_says_so(repository: Repository, damage: str) -> None:
    package = repository.add("p", {"a": bytes(range(256)) * 1000})
    whole = package.read_bytes()
    package.write_bytes(whole[: len(whole) // 2] if damage == "cut" else b"nonsense" * 100)

    with pytest.raises(ImageError, match=r"p_1.0_amd64.deb cannot be unpacked: .") as raised:
        list(deb.members(package))
    assert f"remove {package}" in str(raised.value)


def test_who_stops_reading_leaves_no_process(repository: Repository) -> None:
    package = repository.add("p", {"a": bytes(5_000_000), "b": b""})
    members = deb.members(package)
    next(members)
    running = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if os.fsencode(package) in path.read_bytes():
                running.append(int(path.parent.name))
    assert running

    del members

    assert all(process.wait_for_pid(pid, 5) for pid in running)


def test_nothing_leads_out_and_hard_links_become_links(tmp_path: Path) -> None:
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for name in ("./bin/one", "../../outside", "/absolute"):
            member = tarfile.TarInfo(name)
            member.size = 1
            tar.addfile(member, io.BytesIO(b"x"))
        link = tarfile.TarInfo("./bin/two")
        link.type, link.linkname = tarfile.LNKTYPE, "./bin/one"
        tar.addfile(link)
        fifo = tarfile.TarInfo("./fifo")
        fifo.type = tarfile.FIFOTYPE
        tar.addfile(fifo)
    package = tmp_path / "p.deb"
    _write_deb(package, archive.getvalue())

    found = dict(deb.members(package))

    assert set(found) == {"bin/one", "outside", "absolute", "bin/two"}
    assert found["bin/two"] == Entry(stat.S_IFLNK | 0o777, b"/bin/one")


def _write_deb(path: Path, data: bytes) -> None:
    """deb(5): an ar archive of three members."""
    control = io.BytesIO()
    with tarfile.open(fileobj=control, mode="w") as tar:
        text = b"Package: p\nVersion: 1\nArchitecture: all\nMaintainer: t\nDescription: t\n"
        member = tarfile.TarInfo("./control")
        member.size = len(text)
        tar.addfile(member, io.BytesIO(text))
    out = b"!<arch>\n"
    for name, content in (
        ("debian-binary", b"2.0\n"),
        ("control.tar", control.getvalue()),
        ("data.tar", data),
    ):
        out += f"{name:<16}{0:<12}{0:<6}{0:<6}{'100644':<8}{len(content):<10}`\n".encode()
        out += content + b"\n" * (len(content) % 2)
    path.write_bytes(out)
