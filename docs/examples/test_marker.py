"""What a test wants of its machine is said by a marker."""

from __future__ import annotations

import pytest

from pytest_hil import Target


@pytest.mark.hil(memory="512M", smp=2)
def test_a_bigger_machine(hil: Target) -> None:
    assert hil.run("nproc").stdout == "2\n"


@pytest.mark.hil(append="mitigations=off")
def test_other_kernel_parameters(hil: Target) -> None:
    assert "mitigations=off" in hil.run("cat /proc/cmdline").stdout.split()


@pytest.mark.hil(features=["usb"])
def test_a_required_feature(hil: Target) -> None:
    # Skipped, and the report says why, on a target that has no USB.
    assert "vhci_hcd" in hil.run("ls /sys/devices/platform").stdout


@pytest.mark.hardware
def test_only_on_a_board(hil: Target) -> None:
    # Skipped on machines that are emulated.
    hil.power.cycle()


@pytest.mark.hil(features=["network"], forwards=[8080])
def test_a_port_of_the_machine_on_this_host(hil: Target) -> None:
    hil.run("mkdir /tmp/www; echo it works > /tmp/www/index.html; httpd -p 8080 -h /tmp/www")
    assert ask("127.0.0.1", hil.forward(8080)) == b"it works\n"


def ask(host: str, port: int) -> bytes:
    from urllib.request import urlopen

    with urlopen(f"http://{host}:{port}/", timeout=10) as answer:
        content: bytes = answer.read()
    return content
