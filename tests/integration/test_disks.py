"""The user's disk images: seen by the guest, never written."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from pytest_hil.bench import Bench, Settings
from pytest_hil.errors import ImageError
from pytest_hil.qemu import runtime
from pytest_hil.qemu.guest import Guest

pytestmark = pytest.mark.machine

MiB = 2**20


@pytest.fixture(scope="module", params=["raw", "qcow2"])
def image(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One for all tests here: another path would be another template."""
    raw = tmp_path_factory.mktemp("image") / "disk.raw"
    raw.write_bytes(b"factory!" + bytes(8 * MiB - 8))
    if request.param == "raw":
        return raw
    out = raw.with_suffix(".qcow2")
    subprocess.run(["qemu-img", "convert", "-O", "qcow2", raw, out], check=True)
    return out


@pytest.fixture
def bench(image: Path, bench: Bench, tmp_path: Path) -> Iterator[Bench]:
    """The built-in image's kernel and initramfs, and the disk, as the user's own files."""
    made = bench.plan(bench.target("qemu")).hardware
    (tmp_path / "boards.toml").write_text(
        f"""
        [target.disk]
        backend = "qemu"
        kernel = "{made.kernel}"
        initrd = "{made.initrd}"
        append = "{made.append}"
        disk = "{image}"
        agent = true
        """
    )
    with Bench(Settings(root=tmp_path, accel="tcg")) as own:
        yield own


@pytest.fixture
def guest(bench: Bench) -> Iterator[Guest]:
    made = bench.open(bench.target("disk"))
    yield made
    made.close()


def first_bytes(guest: Guest) -> str:
    return guest.run("dd if=/dev/vda bs=8 count=1 2>/dev/null").stdout


def write(guest: Guest, text: str) -> None:
    guest.run("dd of=/dev/vda conv=fsync,notrunc 2>/dev/null", input=text)


def test_each_clone_has_the_factory_disk_and_the_image_stays(
    bench: Bench, guest: Guest, image: Path
) -> None:
    before = hashlib.sha256(image.read_bytes()).hexdigest()
    assert guest.origin.how == "clone"
    assert first_bytes(guest) == "factory!"
    write(guest, "written!")
    other = bench.open(bench.target("disk"))
    try:
        assert first_bytes(other) == "factory!"
    finally:
        other.close()
    assert first_bytes(guest) == "written!"
    guest.close()
    assert hashlib.sha256(image.read_bytes()).hexdigest() == before


def test_a_snapshot_has_its_disk(guest: Guest) -> None:
    write(guest, "snapshot")
    saved = guest.snapshot("with disk")
    write(guest, "later...")
    twin = guest.fork()
    guest.restore(saved)
    assert first_bytes(guest) == "snapshot"
    assert first_bytes(twin) == "later..."
    write(twin, "twin....")
    again = guest.snapshot("again")
    write(guest, "changed.")
    guest.restore(again)
    assert first_bytes(guest) == "snapshot"
    guest.restore(saved)
    assert first_bytes(guest) == "snapshot"


def test_a_snapshot_needs_no_template(bench: Bench, guest: Guest) -> None:
    write(guest, "snapshot")
    saved = guest.snapshot()
    state = bench.factory(bench.target("disk")).template()
    assert state is not None
    bench.cache.remove("templates", state.path.name)
    guest.restore(saved)
    assert first_bytes(guest) == "snapshot"
    assert guest.run("dd if=/dev/vda bs=1M 2>/dev/null | wc -c").stdout.strip() == str(8 * MiB)


def test_the_disk_survives_a_power_cut_and_a_reset(guest: Guest) -> None:
    write(guest, "durable!")
    guest.power.cycle()
    assert first_bytes(guest) == "durable!"
    guest.reset()
    assert first_bytes(guest) == "durable!"


def test_nothing_is_left(bench: Bench, guest: Guest) -> None:
    mine = runtime.base() / runtime.owner_name()
    guest.snapshot("one")
    assert any(mine.glob("*"))
    guest.close()
    bench.close()
    assert not any(mine.glob("disk-*"))
    assert not any(mine.glob("snapshots-*"))


def test_an_image_of_a_foreign_format_is_refused(bench: Bench, tmp_path: Path) -> None:
    vmdk = tmp_path / "disk.vmdk"
    subprocess.run(["qemu-img", "create", "-q", "-f", "vmdk", vmdk, "1M"], check=True)
    with pytest.raises(ImageError, match=r"(?s)vmdk.*qemu-img convert") as caught:
        bench.open(bench.target("disk", disk=str(vmdk), agent=True))
    assert str(vmdk) in str(caught.value)


def test_a_fork_can_be_forked(guest: Guest) -> None:
    write(guest, "forked..")
    twin = guest.fork()
    grandchild = twin.fork()
    assert first_bytes(grandchild) == "forked.."


def test_a_copy_of_the_image_needs_nothing_of_the_first(
    bench: Bench, image: Path, tmp_path: Path
) -> None:
    first, second = (tmp_path / f"{name}{image.suffix}" for name in ("first", "second"))
    shutil.copy(image, first)
    shutil.copy(image, second)
    bench.open(bench.target("disk", disk=str(first), agent=True)).close()  # its template is there
    first.unlink()
    guest = bench.open(bench.target("disk", disk=str(second), agent=True))
    assert first_bytes(guest) == "factory!"
    guest.close()
