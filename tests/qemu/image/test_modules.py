from __future__ import annotations

import gzip
import lzma
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import zstandard

from pytest_hil.errors import ImageError
from pytest_hil.qemu.image.modules import ModuleTree, find_version, index_files, modinfo

if TYPE_CHECKING:
    from tests.qemu.image.conftest import Make


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "lib/modules/9.9.9"
    (root / "kernel").mkdir(parents=True)
    return root


def write(root: Path, name: str, data: bytes) -> None:
    path = root / "kernel" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def test_what_is_needed_comes_first(root: Path, make: Make) -> None:
    write(root, "usb/usb-storage.ko", make.module(depends="scsi_mod,usbcore"))
    write(root, "scsi/scsi_mod.ko", make.module(depends="scsi_common"))
    write(root, "scsi/scsi_common.ko", make.module())
    write(root, "usb/usbcore.ko", make.module())
    write(root, "other.ko", make.module())

    names = [module.name for module in ModuleTree(root).closure(["usb-storage", "usbcore"])]

    assert names == ["scsi_common", "scsi_mod", "usbcore", "usb_storage"]


def test_soft_dependencies_come_where_they_are_there(root: Path, make: Make) -> None:
    write(root, "a.ko", make.module(softdep=("pre: b missing", "post: c")))
    write(root, "b.ko", make.module())
    write(root, "c.ko", make.module())

    assert [m.name for m in ModuleTree(root).closure(["a"])] == ["b", "c", "a"]


def test_modules_that_want_each_other_end(root: Path, make: Make) -> None:
    write(root, "a.ko", make.module(softdep="pre: b"))
    write(root, "b.ko", make.module(softdep="pre: a"))

    assert {m.name for m in ModuleTree(root).closure(["a"])} == {"a", "b"}


def test_built_in_and_unknown_ones_are_left_out(root: Path, make: Make) -> None:
    (root / "modules.builtin").write_text("kernel/fs/ext4/ext4.ko\nkernel/lib/crc-t10dif.ko\n")
    write(root, "a.ko", make.module(depends="crc_t10dif"))
    tree = ModuleTree(root)

    assert [m.name for m in tree.closure(["ext4", "a", "nonsense"])] == ["a"]
    assert tree.known("ext4")
    assert not tree.known("nonsense")


def test_a_needed_module_that_is_not_there_is_an_error(root: Path, make: Make) -> None:
    write(root, "a.ko", make.module(depends="gone"))

    with pytest.raises(ImageError, match=r"a\.ko needs gone, which is not in"):
        ModuleTree(root).closure(["a"])


def test_a_wrong_name_gets_the_nearest_right_one(root: Path, make: Make) -> None:
    write(root, "usb-storage.ko", make.module())

    with pytest.raises(
        ImageError, match=r"\[image.x\]: the kernel 9.9.9 has no module 'usb_storge'"
    ) as e:
        ModuleTree(root).require(["usb-storage", "usb_storge"], where="[image.x]")
    assert "did you mean 'usb_storage'?" in str(e.value)


@pytest.mark.parametrize(
    ("suffix", "compress"),
    [
        (".xz", lzma.compress),
        (".gz", gzip.compress),
        (".zst", zstandard.ZstdCompressor().compress),
    ],
)
def test_compressed_modules_come_out_unpacked(
    root: Path, make: Make, suffix: str, compress: Callable[[bytes], bytes]
) -> None:
    data = make.module()
    write(root, f"net/dummy.ko{suffix}", compress(data))

    [module] = ModuleTree(root).closure(["dummy"])

    assert module.data == data
    assert module.path == "kernel/net/dummy.ko"


@pytest.mark.parametrize("suffix", [".ko", ".ko.xz", ".ko.zst"])
def test_a_damaged_module_is_named(root: Path, suffix: str) -> None:
    write(root, f"bad{suffix}", b"not a module")

    with pytest.raises(ImageError, match=r"bad\.ko"):
        ModuleTree(root).closure(["bad"])


def test_modprobe_gets_whole_chains_and_aliases(root: Path, make: Make) -> None:
    write(root, "a.ko", make.module(depends="b", alias=("usb:v1*", "crypto-x")))
    write(root, "b.ko", make.module(depends="c"))
    write(root, "c.ko", make.module())

    files = index_files(ModuleTree(root).closure(["a"]))

    assert files["modules.dep"].splitlines() == [
        "kernel/c.ko:",
        "kernel/b.ko: kernel/c.ko",
        "kernel/a.ko: kernel/b.ko kernel/c.ko",
    ]
    assert files["modules.alias"] == "alias usb:v1* a\nalias crypto-x a\n"


def test_modinfo_keeps_every_value_of_a_key(make: Make) -> None:
    assert modinfo(make.module(depends="x", alias=("1", "2")), name="m") == {
        "depends": ["x"],
        "alias": ["1", "2"],
    }


@pytest.mark.parametrize("given", ["", "lib/modules", "lib/modules/9.9.9"])
def test_the_version_is_found_in_whatever_was_given(root: Path, given: str) -> None:
    assert find_version(root.parents[2] / given) == root


def test_the_modules_of_two_kernels_are_no_answer(root: Path) -> None:
    (root.parent / "8.8.8/kernel").mkdir(parents=True)

    with pytest.raises(ImageError, match="of 2 kernels") as e:
        find_version(root.parents[2])
    assert str(root) in str(e.value)


def test_no_modules_at_all(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="has no kernel modules"):
        find_version(tmp_path)
    with pytest.raises(ImageError, match="does not exist"):
        find_version(tmp_path / "nowhere")
