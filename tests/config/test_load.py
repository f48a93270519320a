"""What a right boards.toml becomes."""

from __future__ import annotations

import platform
import re
from pathlib import Path

import pytest

from pytest_hil.config import (
    ARCHES,
    Config,
    DebianImage,
    Download,
    FilesImage,
    Forward,
    GuestFile,
    MiB,
    QemuTarget,
    UrlImage,
    image_spec,
    load,
)
from pytest_hil.config.tables import DEBIAN_KEYS, FILES_KEYS, TARGET_KEYS

ROOT = Path(__file__).parents[2]
REFERENCE = (ROOT / "docs/reference/boards-toml.md").read_text()

SHA256 = "a1" * 32
SHA512 = "b2" * 64


def read(tmp_path: Path, text: str) -> Config:
    path = tmp_path / "boards.toml"
    path.write_text(text)
    return load(path, root=tmp_path)


def qemu(keys: str) -> str:
    return f'[target.t]\nbackend = "qemu"\n{keys}\n'


def test_without_a_file_there_is_the_qemu_target(tmp_path: Path) -> None:
    config = load(None, root=tmp_path)
    assert config.path is None
    assert config.targets.keys() == {"qemu"}
    assert config.images == {"debian": DebianImage("debian")}
    assert config.machine("qemu").arch in ARCHES
    assert config.machine("qemu").memory == 256 * MiB
    assert image_spec(config.machine("qemu"), config) == DebianImage("debian")


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the host's own architecture")
def test_default_architecture_is_the_hosts(tmp_path: Path) -> None:
    assert load(None, root=tmp_path).machine("qemu").arch == "x86_64"


def test_the_file_in_the_root_is_found(tmp_path: Path) -> None:
    (tmp_path / "boards.toml").write_text(qemu("smp = 2"))
    config = load(None, root=tmp_path)
    assert config.path == tmp_path / "boards.toml"
    assert config.targets.keys() == {"qemu", "t"}


def test_every_key_of_a_target(tmp_path: Path) -> None:
    config = read(
        tmp_path,
        qemu(
            """arch = "aarch64"
            machine = "virt,gic-version=3"
            cpu = "max,pauth-impdef=on"
            smp = 4
            memory = "1GiB"
            kernel = "Image"
            initrd = "sub/initrd.gz"
            disk = "/images/disk.qcow2"
            append = "console=ttyAMA0"
            agent = false
            ready = "login: $"
            network = "open"
            forwards = [22, "80", "8080/tcp", "53/udp"]
            features = ["net", "usb"]
            extra_args = ["-device", "virtio-rng-pci"]"""
        ),
    )
    assert config.machine("t") == QemuTarget(
        name="t",
        arch="aarch64",
        machine="virt,gic-version=3",
        cpu="max,pauth-impdef=on",
        smp=4,
        memory=1024 * MiB,
        kernel=tmp_path / "Image",
        initrd=tmp_path / "sub/initrd.gz",
        disk=Path("/images/disk.qcow2"),
        append="console=ttyAMA0",
        agent=False,
        ready="login: $",
        network="open",
        forwards=(Forward(22), Forward(80), Forward(8080), Forward(53, "udp")),
        features=frozenset({"net", "usb"}),
        extra_args=("-device", "virtio-rng-pci"),
    )


@pytest.mark.parametrize(
    ("written", "count"),
    [('"64K"', 2**16), ('"512M"', 2**29), ('"512 mib"', 2**29), ('"2G"', 2**31), ("64", 2**26)],
)
def test_sizes(tmp_path: Path, written: str, count: int) -> None:
    assert read(tmp_path, qemu(f"memory = {written}")).machine("t").memory == count


def test_every_kind_of_image(tmp_path: Path) -> None:
    config = read(
        tmp_path,
        f"""
        [image.tools]
        packages = ["strace", "libstdc++6"]
        modules = ["cdc-acm", "dm_mod"]
        files = [{{ source = "tool.sh", path = "/usr/bin/tool", mode = "0755" }}]
        startup = ["modprobe dummy", '''
        for i in 1 2; do echo $i; done''']
        append = "quiet"

        [image.pairs]
        arch = "riscv64"
        files = {{ "/etc/motd" = "motd" }}

        [image.mine]
        kind = "files"
        kernel = "bzImage"
        initrd = "initrd"
        agent = true

        [image.cloud]
        kind = "url"
        [image.cloud.disk]
        url = "https://example.org/a.qcow2"
        sha256 = "{SHA256.upper()}"
        sha512 = "{SHA512}"
        """,
    )
    assert config.image("tools") == DebianImage(
        "tools",
        packages=("strace", "libstdc++6"),
        modules=("cdc-acm", "dm_mod"),
        files=(GuestFile(tmp_path / "tool.sh", "/usr/bin/tool", 0o755),),
        startup=("modprobe dummy", "        for i in 1 2; do echo $i; done"),
        append="quiet",
    )
    assert config.image("pairs") == DebianImage(
        "pairs", arch="riscv64", files=(GuestFile(tmp_path / "motd", "/etc/motd"),)
    )
    assert config.image("mine") == FilesImage(
        "mine", kernel=tmp_path / "bzImage", initrd=tmp_path / "initrd", agent=True
    )
    assert config.image("cloud") == UrlImage(
        "cloud", disk=Download("https://example.org/a.qcow2", SHA256, SHA512)
    )


def test_a_file_may_be_fetched_from_this_host(tmp_path: Path) -> None:
    sum_ = "0" * 64
    text = f'[image.a]\nkind = "url"\ndisk = {{ url = "file:///srv/d", sha256 = "{sum_}" }}'
    image = read(tmp_path, text).images["a"]
    assert isinstance(image, UrlImage)
    assert image.disk == Download("file:///srv/d", sum_)


def test_a_target_takes_its_images_architecture(tmp_path: Path) -> None:
    config = read(tmp_path, '[image.r]\narch = "riscv64"\n' + qemu('image = "r"'))
    assert config.machine("t").arch == "riscv64"


def test_builtins_can_be_redefined(tmp_path: Path) -> None:
    config = read(
        tmp_path,
        '[target.qemu]\nbackend = "qemu"\nmemory = "1G"\n[image.debian]\npackages = ["strace"]',
    )
    assert config.machine("qemu").memory == 2**30
    assert image_spec(config.machine("qemu"), config) == DebianImage("debian", packages=("strace",))


def test_a_byte_order_mark_is_no_error(tmp_path: Path) -> None:
    assert "t" in read(tmp_path, "\ufeff" + qemu("smp = 2")).targets


# -- what is written about it ----------------------------------------------------------------


def test_the_projects_own_file() -> None:
    config = load(None, root=ROOT)
    assert config.path == ROOT / "boards.toml"
    for target in config.targets.values():
        assert isinstance(target, QemuTarget)  # none needs anything that is not here
        image_spec(target, config)


@pytest.mark.parametrize("example", re.findall(r"^```toml\n(.*?)^```", REFERENCE, re.M | re.S))
def test_the_references_examples(tmp_path: Path, example: str) -> None:
    config = read(tmp_path, example)
    assert len(config.targets) + len(config.images) > 2


@pytest.mark.parametrize(
    ("heading", "keys"),
    [
        ("## `[target.NAME]`", {*TARGET_KEYS, "backend"}),
        ('### `kind = "debian"`', set(DEBIAN_KEYS)),
        ('### `kind = "files"`', set(FILES_KEYS)),
    ],
)
def test_the_reference_has_every_key_and_no_other(heading: str, keys: set[str]) -> None:
    section = REFERENCE.partition(heading)[2]
    table = re.search(r"^\| key \|.*?\n\n", section, re.M | re.S)
    assert table
    first_cells = [line.split("|")[1] for line in table[0].splitlines()[2:] if line]
    assert {key for cell in first_cells for key in re.findall(r"`(\w+)`", cell)} == keys
