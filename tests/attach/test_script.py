"""What the guest's script says, and what is made of it; the script itself runs in real guests."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Sequence

import pytest

from pytest_hil.agent.protocol import STDERR, STDOUT
from pytest_hil.attach.script import SCRIPT, Answer, ask
from pytest_hil.errors import AttachFailed, CommandTimeout
from pytest_hil.target import Completed, UsbDevice

ATTACHED = """\
phase usbip 2.54
phase hub 2.67
port 15
guest 2-1
phase configure 2.95
ids 1209 0005
phase drivers 2.99
interface 1.0 usb-storage
interface 1.1 -
phase nodes 3.16
node /dev/bus/usb/002/002
node /dev/sda
phase ready 3.21
"""


class Words:
    """A guest that says these words, in pieces."""

    def __init__(self, stdout: str, stderr: str = "", code: int = 0) -> None:
        self.said = [(STDOUT, stdout[:5]), (STDERR, stderr), (STDOUT, stdout[5:])]
        self.code = code
        self.argv: Sequence[str] = ()

    def run(
        self, argv: Sequence[str], timeout: float, on_output: Callable[[int, bytes], None]
    ) -> Completed:
        self.argv = argv
        for stream, text in self.said:
            on_output(stream, text.encode())
        return Completed("", "", "", self.code, 0.1)


def test_what_an_attached_device_is() -> None:
    guest, heard = Words(ATTACHED, "usbip: info: using port 3240"), list[str]()
    answer = ask("it failed", guest.run, ["attach", 1], 10, heard=heard.append)
    assert list(guest.argv[-3:]) == ["hil-usb", "attach", "1"]
    assert (answer.port, answer.guest_busid) == (15, "2-1")
    assert (answer.vendor_id, answer.product_id) == (0x1209, 5)
    assert answer.interfaces == [("1.0", "usb-storage"), ("1.1", "")]
    assert answer.nodes == ["/dev/bus/usb/002/002", "/dev/sda"]
    assert answer.phases[0] == ("usbip", 2.54)
    assert heard[2:6] == ["port", "guest", "phase", "ids"]


def test_what_is_attached() -> None:
    text = (
        "attached 0 1-1 1209 0002 10.0.2.100 3240 1-4\nnode /dev/hidraw0\n"
        "attached 3 1-4 abcd 0003 - - -\n"
    )
    assert ask("", Words(text).run, ["list"], 10).devices == [
        UsbDevice(0, "1-1", 0x1209, 2, "10.0.2.100:3240", "1-4", ("/dev/hidraw0",)),
        UsbDevice(3, "1-4", 0xABCD, 3, "", "", ()),
    ]


@pytest.mark.parametrize(
    "line", ["", "phase", "phase unknown 1.0", "port", "node", "attached 1", "hello world"]
)
def test_what_is_none_of_its_words(line: str) -> None:
    answer = Answer()
    assert answer.hear(line) == ""
    assert answer == Answer()


def test_how_far_it_came() -> None:
    text = "phase usbip 1.0\nphase hub 1.1\nfailed late\nkernel [ 1.1] usb 1-1: no\nkernel more\n"
    with pytest.raises(AttachFailed) as failed:
        ask("it failed", Words(text, code=1).run, ["attach"], 10, troubles=lambda: "ValueError")
    assert str(failed.value) == (
        "it failed: it took longer than 10 s "
        "(it came as far as: its kernel, to read the device's descriptors)\n"
        "  the device's handler raised:\n    ValueError\n"
        "  the target's kernel said last:\n    [ 1.1] usb 1-1: no\n    more"
    )


@pytest.mark.parametrize(
    ("stdout", "stderr", "said"),
    [
        ("failed usbip\n", "usbip: error: import\n", "its usbip says: usbip: error: import"),
        ("failed usbip\n", "", "its usbip says: nothing"),
        ("failed vhci\n", "", "its kernel has no vhci_hcd"),
        ("failed root\n", "", "only root may attach USB devices"),
        ("failed tool\n", "", "it has no usbip tool .*, and neither bash nor busybox's nc"),
        ("failed import\n", "all ports", "it could not import the device: all ports"),
        ("failed detach\n", "sh: write error", "its kernel does not detach it: sh: write error"),
        ("failed ended\n", "", "the connection to its exporter ended"),
        ("", "sh: syntax error\n", "the target says: sh: syntax error"),
    ],
)
def test_why_it_failed(stdout: str, stderr: str, said: str) -> None:
    with pytest.raises(AttachFailed, match=said):
        ask("it failed", Words(stdout, stderr, 1).run, ["attach"], 10)


def test_a_guest_that_does_not_answer() -> None:
    def run(_argv: object, timeout: float, on_output: Callable[[int, bytes], None]) -> Completed:
        on_output(STDOUT, b"phase usbip 1.0\nphase hu")
        raise CommandTimeout("sh", timeout=timeout)

    said = r"within 25 s; a wall \(it came as far as: its usbip tool\)"
    with pytest.raises(AttachFailed, match=said):
        ask("it failed", run, ["attach"], 10, why_not=lambda: "a wall")


@pytest.mark.parametrize("shell", ["sh", "bash", "busybox sh"])
def test_the_script_is_one_for_every_shell(shell: str) -> None:
    guest = Words("")
    ask("", guest.run, ["list"], 10)
    argv = [*shell.split(), "-n"]
    subprocess.run([*argv, str(SCRIPT)], check=True, timeout=30)
    subprocess.run(argv, input=guest.argv[2], text=True, check=True, timeout=30)
    assert "\n#" not in guest.argv[2]


def test_why_it_did_not_come() -> None:
    """Said of what failed on the way to us, and of nothing else."""

    def why(stdout: str) -> str:
        with pytest.raises(AttachFailed) as failed:
            ask("it failed", Words(stdout, code=1).run, ["attach"], 9, why_not=lambda: "a wall")
        return str(failed.value).splitlines()[0]

    assert "its usbip says: nothing; a wall (it came as" in why("phase usbip 1.0\nfailed usbip\n")
    assert "a wall" not in why("phase usbip 1.0\nphase hub 1.1\nfailed late\n")
    assert "a wall" not in why("failed vhci\n")
