"""What a target boots, and what a marker or an option changes."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_hil.config import (
    Config,
    DebianImage,
    FilesImage,
    Forward,
    MiB,
    QemuTarget,
    image_spec,
    load,
    with_overrides,
)
from pytest_hil.errors import ConfigError

URL_IMAGE = f"""
[image.cloud]
kind = "url"
disk = {{ url = "https://example.org/disk.qcow2", sha256 = "{"0" * 64}" }}
"""


def read(tmp_path: Path, text: str) -> Config:
    path = tmp_path / "boards.toml"
    path.write_text(text)
    return load(path, root=tmp_path)


@pytest.fixture
def files(tmp_path: Path) -> Path:
    for name in ("kernel", "initrd", "disk"):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "modules").mkdir()
    return tmp_path


@pytest.fixture
def plain(tmp_path: Path) -> QemuTarget:
    return load(None, root=tmp_path).machine("qemu")


def spec_of(tmp_path: Path, keys: str) -> object:
    config = read(tmp_path, f'[target.t]\nbackend = "qemu"\narch = "arm"\n{keys}')
    return image_spec(config.machine("t"), config)


def test_a_kernel_alone_goes_under_our_initramfs(files: Path) -> None:
    assert spec_of(files, 'kernel = "kernel"\nkernel_modules = "modules"') == DebianImage(
        "debian", kernel=files / "kernel", kernel_modules=files / "modules"
    )


def test_a_kernel_alone_without_an_agent_is_bare_metal(files: Path) -> None:
    assert spec_of(files, 'kernel = "kernel"\nagent = false') == FilesImage(
        "t", kernel=files / "kernel", arch="arm", agent=False
    )


def test_the_users_files_have_no_agent_unless_they_say_so(files: Path) -> None:
    for keys, agent in (("", False), ("\nagent = true", True)):
        assert spec_of(files, f'kernel = "kernel"\ninitrd = "initrd"{keys}') == FilesImage(
            "t", kernel=files / "kernel", initrd=files / "initrd", arch="arm", agent=agent
        )
        assert spec_of(files, f'disk = "disk"{keys}') == FilesImage(
            "t", disk=files / "disk", arch="arm", agent=agent
        )


def test_a_kernel_replaces_that_of_the_targets_image(files: Path) -> None:
    image = '\n[image.mine]\nkind = "files"\nkernel = "old"\ninitrd = "initrd"'
    assert spec_of(files, 'image = "mine"\nkernel = "kernel"' + image) == FilesImage(
        "mine", kernel=files / "kernel", initrd=files / "initrd"
    )
    image = '\n[image.mine]\npackages = ["strace"]\nkernel = "old"\nkernel_modules = "old"'
    assert spec_of(files, 'image = "mine"\nkernel = "kernel"' + image) == DebianImage(
        "mine", packages=("strace",), kernel=files / "kernel"
    )


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ('image = "cloud"\nkernel = "kernel"', "kernel: the image cloud is fetched as a whole"),
        ('image = "cloud"\ndisk = "disk"', "boots the image cloud or a disk of its own, not both"),
        (
            'agent = false\nkernel = "kernel"\nkernel_modules = "modules"',
            "kernel_modules: modules go into pytest-hil's initramfs",
        ),
    ],
)
def test_things_that_do_not_fit_together(files: Path, keys: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        spec_of(files, keys + URL_IMAGE)
    assert message in str(caught.value)
    assert f"{files}/boards.toml: [target.t] " in str(caught.value)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ('kernel = "nowhere"', "[target.t] kernel: {dir}/nowhere: there is no such file"),
        ('kernel = "modules"', "[target.t] kernel: {dir}/modules: a directory, not a file"),
        (
            'kernel = "kernel"\nkernel_modules = "disk"',
            "[target.t] kernel_modules: {dir}/disk: not a directory",
        ),
        (
            'image = "i"\n[image.i]\nkind = "files"\ndisk = "nowhere"',
            "[image.i] disk: {dir}/nowhere: there is no such file",
        ),
        (
            'image = "i"\n[image.i]\nfiles = { "/etc/motd" = "nowhere" }',
            "[image.i] files: {dir}/nowhere: there is no such file",
        ),
    ],
)
def test_files_are_looked_for_when_they_are_used(files: Path, keys: str, message: str) -> None:
    config = read(files, f'[target.t]\nbackend = "qemu"\n{keys}')
    with pytest.raises(ConfigError) as caught:
        image_spec(config.machine("t"), config)
    assert str(caught.value) == f"{files}/boards.toml: {message.format(dir=files)}"


def test_a_missing_file_that_an_option_named(files: Path, plain: QemuTarget) -> None:
    config = load(None, root=files)
    target = with_overrides(plain, config=config, base=files, kernel="nowhere")
    with pytest.raises(ConfigError, match=r"the kernel given for the target qemu: .*nowhere"):
        image_spec(target, config)


def test_overrides_are_values_as_in_the_file(tmp_path: Path, plain: QemuTarget) -> None:
    changed = with_overrides(
        plain,
        base=tmp_path,
        memory="512M",
        smp=2,
        cpu="max",
        machine="microvm",
        append="quiet",
        kernel=Path("bzImage"),
        network="open",
        forwards=(22, Forward(53, "udp")),
        features={"usb"},
        extra_args=["-s"],
        image=None,
    )
    assert changed == QemuTarget(
        "qemu",
        arch=plain.arch,
        memory=512 * MiB,
        smp=2,
        cpu="max",
        machine="microvm",
        append="quiet",
        kernel=tmp_path / "bzImage",
        network="open",
        forwards=(Forward(22), Forward(53, "udp")),
        features=frozenset({"usb"}),
        extra_args=("-s",),
    )
    assert with_overrides(plain) == plain


def test_a_disk_given_for_a_test_has_no_agent(tmp_path: Path, plain: QemuTarget) -> None:
    assert not with_overrides(plain, base=tmp_path, disk="d.qcow2").agent
    assert with_overrides(plain, base=tmp_path, disk="d.qcow2", agent=True).agent


def test_wrong_overrides(tmp_path: Path, plain: QemuTarget) -> None:
    config = load(None, root=tmp_path)
    with pytest.raises(ConfigError) as caught:
        with_overrides(plain, where="test_a.py::test_b: @pytest.mark.hil", mem="1G", smp=0)
    assert str(caught.value).startswith("test_a.py::test_b: @pytest.mark.hil: 2 errors\n")
    assert "mem: unknown key" in str(caught.value)
    with pytest.raises(ConfigError, match=r"image: there is no image 'debain'\n  did you mean"):
        with_overrides(plain, config=config, image="debain")
