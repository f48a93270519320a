"""The console: the machine's own serial line, read from its first byte whether you ask or not."""

from __future__ import annotations

from pytest_hil import Target


def test_the_kernel_logs_to_the_console(hil: Target) -> None:
    hil.run("echo 'a message of mine' > /dev/kmsg")
    hil.console.expect("a message of mine")


def test_talking_to_the_shell_on_the_console(hil: Target) -> None:
    hil.console.sendline("echo $((6 * 7)) is the answer")
    assert hil.console.expect(r"(\d+) is the answer\r?\n").group(1) == "42"


def test_what_was_said_meanwhile(hil: Target) -> None:
    before = hil.console.mark()
    hil.run("echo one > /dev/kmsg; echo two > /dev/kmsg")
    hil.console.expect("two")
    said = hil.console.since(before)
    assert said.index("one") < said.index("two")


def test_the_boot_log_is_there_too(hil: Target) -> None:
    # The machine is a clone of one that was booted before. It remembers what that one said.
    assert "Linux version" in hil.console.text()
