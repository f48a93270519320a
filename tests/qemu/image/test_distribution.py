from __future__ import annotations

from pathlib import Path

import pytest

from pytest_hil.errors import ImageError
from pytest_hil.qemu.image.distribution import debian_arch, host_distribution


def release(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "os-release"
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("text", "name", "number", "codename"),
    [
        ('ID=debian\nVERSION_ID="12"\nVERSION_CODENAME=bookworm\n', "debian", "12", "bookworm"),
        ("ID=debian\nVERSION_CODENAME=forky\n", "debian", "", "forky"),
        (
            'ID=ubuntu\nID_LIKE=debian\nVERSION_ID="24.04"\nVERSION_CODENAME=noble\n',
            *("ubuntu", "24.04", "noble"),
        ),
        (
            'ID=linuxmint\nID_LIKE="ubuntu debian"\nVERSION_ID="22"\nUBUNTU_CODENAME=noble\n'
            "VERSION_CODENAME=wilma\n",
            *("ubuntu", "22", "noble"),
        ),
        ("# comment\n\nID=raspbian\nID_LIKE=debian\n", "debian", "", ""),
    ],
)
def test_known_hosts(tmp_path: Path, text: str, name: str, number: str, codename: str) -> None:
    found = host_distribution(release(tmp_path, text))

    assert (found.name, found.release, found.codename) == (name, number, codename)


def test_another_host_is_told_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="this host is Fedora Linux 40") as raised:
        host_distribution(release(tmp_path, 'ID=fedora\nPRETTY_NAME="Fedora Linux 40"\n'))
    assert "own kernel and initrd" in str(raised.value)
    with pytest.raises(ImageError, match="of an unknown kind"):
        host_distribution(tmp_path / "missing")


def test_architectures() -> None:
    assert debian_arch("x86_64") == "amd64"
    with pytest.raises(ImageError, match="for the architecture 'm68k'"):
        debian_arch("m68k")
