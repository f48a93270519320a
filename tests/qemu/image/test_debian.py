"""Whole builds of debian images, with the host's apt and a distribution of small packages."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_hil.config import DebianImage, GuestFile
from pytest_hil.errors import ImageError
from pytest_hil.qemu.image.manifest import Manifest
from pytest_hil.qemu.image.tree import Entry

if TYPE_CHECKING:
    from tests.qemu.image.conftest import Host, Make


def unpack(folder: Path) -> dict[str, Entry]:
    """The files of an image's initrd."""
    archive = (folder / "initrd").read_bytes()
    found: dict[str, Entry] = {}
    at = 0
    while True:
        fields = [int(archive[i : i + 8], 16) for i in range(at + 6, at + 110, 8)]
        mode, size, name_size = fields[1], fields[6], fields[11]
        name = archive[at + 110 : at + 109 + name_size].decode()
        at += -(-(110 + name_size) // 4) * 4
        if name == "TRAILER!!!":
            return found
        found[name] = Entry(mode, archive[at : at + size])
        at += -(-size // 4) * 4


def test_the_default_image(host: Host) -> None:
    folder = host.build(DebianImage(name="debian"))

    files = unpack(folder)
    assert files["init"].mode == stat.S_IFREG | 0o755
    assert files["usr/sbin/hil-agent"] == Entry(stat.S_IFREG | 0o755, b"agent")
    assert files["dev/console"].mode == stat.S_IFCHR | 0o600
    assert files["usr/bin/cat"].data == b"/bin/busybox"
    assert files["usr/bin/sh"].mode == stat.S_IFREG | 0o755
    for wanted in (
        "usr/sbin/usbip",
        "usr/sbin/usbipd",
        "usr/lib/x/libudev.so.1",
        "usr/lib64/ld.so",
        "usr/lib/klibc.so",
        "usr/share/misc/usb.ids",
        "usr/lib/modules/9.9.9-test/kernel/loop.ko",
    ):
        assert wanted in files
    for unwanted in (
        "usr/share/man/x",
        "usr/lib/x/unused.so",
        "usr/lib/modules/9.9.9-test/kernel/unwanted.ko",
    ):
        assert unwanted not in files
    assert files["etc/hil/modules"].data == b"usbcore vhci_hcd\n"
    modules_dep = files["usr/lib/modules/9.9.9-test/modules.dep"].data.decode()
    assert "kernel/vhci-hcd.ko: kernel/usbcore.ko" in modules_dep.splitlines()
    assert sorted(path.name for path in folder.iterdir() if path.name[0] != ".") == [
        "initrd",
        "kernel",
        "manifest.json",
    ]
    assert "the kernel 9.9.9-test has no virtio_pci, " in "\n".join(host.said)


def test_the_manifest_says_what_is_in_it(host: Host, make: Make) -> None:
    folder = host.build(DebianImage(name="mine", append="quiet"))

    manifest = Manifest.read(folder)
    assert manifest is not None
    assert manifest.append.split() == ["console=ttyS0", "rdinit=/init", "norandmaps", "quiet"]
    assert manifest.kernel_version == "9.9.9-test"
    assert manifest.packages["linux-image-9.9.9-test"] == "1.0"
    assert "linux-image-amd64" not in manifest.packages
    assert manifest.modules == ("usbcore", "vhci_hcd")
    assert manifest.damage(folder) == []
    assert manifest.unpacked > len(make.BUSYBOX)


def test_the_same_recipe_gives_the_same_bytes(host: Host) -> None:
    first = Manifest.read(host.build(DebianImage(name="a")))
    second = Manifest.read(host.build(DebianImage(name="b")))

    assert first is not None
    assert second is not None
    assert first.files == second.files
    assert first.key == second.key


def test_packages_modules_files_and_startup(host: Host, tmp_path: Path) -> None:
    host.repository.add("extra", {"usr/sbin/ip": b"real", "usr/share/doc/x": b""}, depends="lib")
    host.repository.add("lib", {"usr/lib/libextra.so": b"library"})
    (tmp_path / "program").write_bytes(b"program")
    (tmp_path / "program").chmod(0o700)
    (tmp_path / "link").symlink_to("program")
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "one").write_bytes(b"1")
    (folder / "two").symlink_to("one")

    files = unpack(
        host.build(
            DebianImage(
                name="mine",
                packages=("extra",),
                modules=("special",),
                files=(
                    GuestFile(tmp_path / "link", "/opt/program"),
                    GuestFile(tmp_path / "program", "/bin/readable", 0o444),
                    GuestFile(folder, "/srv/folder"),
                ),
                startup=("echo one",),
            )
        )
    )

    assert files["usr/sbin/ip"].data == b"real"
    assert files["usr/lib/libextra.so"].data == b"library"
    assert "usr/share/doc/x" not in files
    assert b"alias ip=/usr/sbin/ip" in files["etc/profile"].data
    assert files["etc/hil/modules"].data == b"usbcore vhci_hcd special\n"
    assert files["opt/program"] == Entry(stat.S_IFREG | 0o700, b"program")
    assert files["usr/bin/readable"] == Entry(stat.S_IFREG | 0o444, b"program")
    assert files["srv/folder/one"].data == b"1"
    assert files["srv/folder/two"] == Entry(stat.S_IFLNK | 0o777, b"one")
    assert files["etc/hil/startup"].data == b"step 'echo one'\n"


def test_another_image_fetches_nothing_again(host: Host) -> None:
    host.build(DebianImage(name="a"))
    for package in host.repository.root.glob("*.deb"):
        package.unlink()
    host.said.clear()

    host.build(DebianImage(name="b"))

    assert not any("fetching" in line or "downloading" in line for line in host.said)


def test_a_refresh_takes_new_packages(host: Host) -> None:
    host.repository.add("extra", {"usr/bin/extra": b"old"})
    spec = DebianImage(name="mine", packages=("extra",))
    host.build(spec)
    host.repository.root.joinpath("tree/extra").rename(host.repository.root / "tree/old")
    host.repository.add("extra", {"usr/bin/extra": b"new"}, version="2.0")

    assert unpack(host.build(spec))["usr/bin/extra"].data == b"old"
    assert unpack(host.build(spec, refresh=True))["usr/bin/extra"].data == b"new"


def test_lists_that_are_older_than_the_mirror_are_fetched_again(host: Host) -> None:
    host.build(DebianImage(name="a"))
    host.repository.add("extra", {"usr/bin/extra": b""})

    files = unpack(host.build(DebianImage(name="b", packages=("extra",))))

    assert "usr/bin/extra" in files


def test_wrong_names_are_said(host: Host, tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="Unable to locate package nonsense"):
        host.build(DebianImage(name="a", packages=("nonsense",)))
    with pytest.raises(
        ImageError, match=r"\[image\.a\] modules: .* no module 'speciall'"
    ) as raised:
        host.build(DebianImage(name="a", modules=("speciall",)))
    assert "did you mean 'special'" in str(raised.value)
    with pytest.raises(ImageError, match=r"\[image\.a\] files: .*gone cannot be read"):
        host.build(DebianImage(name="a", files=(GuestFile(tmp_path / "gone", "/x"),)))


def test_the_users_kernel_alone(host: Host, make: Make, tmp_path: Path) -> None:
    kernel = tmp_path / "bzImage"
    kernel.write_bytes(make.bzimage(make.vmlinux(version="7.0.0-mine", tail=b"debug" * 1000)))

    folder = host.build(DebianImage(name="mine", kernel=kernel))

    manifest = Manifest.read(folder)
    assert manifest is not None
    assert manifest.kernel_version == "7.0.0-mine"
    assert not any(name.startswith("linux-image") for name in manifest.packages)
    assert unpack(folder)["etc/hil/modules"].data == b"\n"
    assert b"debug" not in (folder / "kernel").read_bytes()


def test_the_users_kernel_with_modules(host: Host, make: Make, tmp_path: Path) -> None:
    kernel = tmp_path / "vmlinux"
    kernel.write_bytes(make.vmlinux(version="7.0.0-mine"))
    modules = tmp_path / "mod/lib/modules/7.0.0-mine/kernel"
    modules.mkdir(parents=True)
    (modules / "vhci-hcd.ko").write_bytes(make.module())
    spec = DebianImage(name="mine", kernel=kernel, kernel_modules=tmp_path / "mod")

    files = unpack(host.build(spec))

    assert files["etc/hil/modules"].data == b"vhci_hcd\n"
    assert "usr/lib/modules/7.0.0-mine/kernel/vhci-hcd.ko" in files

    kernel.write_bytes(make.vmlinux(version="7.0.1-mine"))
    with pytest.raises(ImageError, match=r"for another kernel than .*, which is 7\.0\.1-mine"):
        host.build(spec)


def test_modules_without_their_directory(host: Host, make: Make, tmp_path: Path) -> None:
    kernel = tmp_path / "vmlinux"
    kernel.write_bytes(make.vmlinux())

    with pytest.raises(ImageError, match="there are none for the kernel"):
        host.build(DebianImage(name="mine", kernel=kernel, modules=("x",)))
    with pytest.raises(ImageError, match="gone cannot be read"):
        host.build(DebianImage(name="mine", kernel=tmp_path / "gone"))
