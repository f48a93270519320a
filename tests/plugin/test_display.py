"""The lines below pytest's own, seen on a screen."""

from __future__ import annotations

import re
import time

from pytest_hil.plugin.display import Display


class Screen:
    """A terminal of a few lines, and pytest's reporter that writes to it."""

    def __init__(self, *, height: int = 8, broken_by: tuple[str, str] = ("\n", "")) -> None:
        self.lines = [""]
        self.row = self.at = 0
        self.height = height
        self.now = 0.0
        self.raw = ""
        self._pytest_column = 0
        self._broken_by = broken_by

    def write(self, text: str) -> None:
        self.raw += text
        for part in re.findall(r"\x1b\[[0-9;]*[A-Za-z]|.|\n|\r", text):
            self._one(part)

    def _one(self, part: str) -> None:
        if part == "\n":
            self.row, self.at = self.row + 1, 0
            self.lines += [""] * (self.row + 1 - len(self.lines))
        elif part == "\r":
            self.at = 0
        elif part.startswith("\x1b["):
            self._control(int(re.sub(r"\D", "", part) or 1), part[-1])
        else:
            line = self.lines[self.row].ljust(self.at)
            self.lines[self.row] = line[: self.at] + part + line[self.at + 1 :]
            self.at += 1

    def _control(self, count: int, what: str) -> None:
        if what == "A":
            assert self.row - count >= len(self.lines) - self.height, "above the screen"
            self.row -= count
        elif what == "C":
            self.at += count
        elif what in "KJ":
            self.lines[self.row] = self.lines[self.row][: self.at]
            if what == "J":
                del self.lines[self.row + 1 :]
        else:
            assert what == "m", what

    # pytest's side

    def pytest_writes(self, text: str) -> None:
        self._pytest_column = 0 if text.endswith("\n") else self._pytest_column + len(text)
        self.write(text)

    def column(self) -> int:
        return self._pytest_column

    def width(self) -> int:
        return 60

    def break_line(self) -> tuple[str, str]:
        return self._broken_by

    def shown(self) -> list[str]:
        return [line.rstrip() for line in self.lines]


def live(screen: Screen) -> Display:
    return Display(screen.write, screen, live=True, clock=lambda: screen.now)


def plain(screen: Screen) -> Display:
    return Display(screen.write, screen, live=False, clock=lambda: screen.now)


def test_a_line_appears_below_and_goes_away() -> None:
    screen = Screen()
    display = live(screen)
    screen.pytest_writes("test_it.py ..")
    display.status("", "qemu: booting")
    assert screen.shown() == ["test_it.py ..", "hil: qemu: booting"]
    screen.now = 1.0
    display.status("", "qemu: ready")
    assert screen.shown() == ["test_it.py ..", "hil: qemu: ready"]
    display.status("", "")
    screen.pytest_writes("s")
    assert "".join(screen.shown()) == "test_it.py ..s"


def test_each_worker_has_a_line() -> None:
    screen = Screen()
    display = live(screen)
    display.status("gw1", "booting")
    display.status("gw0", "waiting for process 7")
    assert screen.shown() == ["", "hil gw0: waiting for process 7", "hil gw1: booting"]
    display.status("gw1", "")
    assert screen.shown() == ["", "hil gw0: waiting for process 7"]


def test_pytest_writes_meanwhile() -> None:
    screen = Screen()
    display = live(screen)
    screen.pytest_writes("..")
    display.status("gw0", "booting")
    with display.paused():
        screen.pytest_writes(".\n")
    assert screen.shown() == ["...", "", "hil gw0: booting"]
    display.close()
    assert "".join(screen.shown()) == "..."


def test_lines_come_no_faster_than_they_are_read() -> None:
    screen = Screen()
    display = live(screen)
    for number in range(1000):
        screen.now = number / 1000
        display.status("gw0", f"line {number}")
    assert screen.raw.count("hil gw0") <= 12
    screen.raw = ""
    display.status("gw0", "")
    display.status("gw0", "")
    assert screen.shown()[0] == ""
    assert screen.raw.count("\x1b[J") == 1


def test_a_long_line_is_cut_and_a_guest_cannot_write_elsewhere() -> None:
    screen = Screen()
    live(screen).status("", "\x1b[2J\r\n" + "x" * 500)
    assert screen.shown()[1:] == ["hil: " + ("[2J" + "   " + "x" * 500).strip()[:54]] or (
        len(screen.shown()[1]) <= 59
    )
    assert len(screen.shown()) == 2
    assert "\x1b[2J" not in screen.raw


def test_plain_lines_are_few_and_the_last_one_is_said() -> None:
    screen = Screen()
    display = plain(screen)
    for tenth in range(45):
        screen.now = tenth / 10
        display.status("gw0", f"booting, {screen.now:.1f} s")
    display.status("gw0", "")
    assert screen.shown() == [
        "",
        "hil gw0: booting, 0.0 s",
        "hil gw0: booting, 2.0 s",
        "hil gw0: booting, 4.0 s",
        "hil gw0: booting, 4.4 s",
    ]


def test_workers_do_not_wait_for_each_other() -> None:
    screen = Screen(broken_by=("", "\n"))
    display = plain(screen)
    display.status("gw0", "one")
    display.status("gw1", "two")
    display.status("gw0", "")
    display.status("gw1", "")
    display.status("gw2", "")
    assert screen.shown() == ["hil gw0: one", "hil gw1: two", ""]


def test_the_last_of_several_quick_lines_is_shown_though_nothing_follows_it() -> None:
    screen = Screen()
    display = plain(screen)
    display.status("gw0", "first")
    screen.now = 1.99
    display.status("gw0", "waiting for the other one")
    assert "waiting" not in screen.raw
    screen.now = 2.5
    deadline = time.monotonic() + 5
    while "waiting" not in screen.raw and time.monotonic() < deadline:
        time.sleep(0.005)
    assert "hil gw0: waiting for the other one" in screen.raw
    display.close()


def test_the_last_of_several_quick_lines_is_drawn_though_nothing_follows_it() -> None:
    screen = Screen()
    display = live(screen)
    display.status("", "first")
    display.status("", "second")
    assert "second" not in screen.raw
    screen.now = 1.0
    deadline = time.monotonic() + 5
    while "second" not in screen.raw and time.monotonic() < deadline:
        time.sleep(0.005)
    assert "hil: second" in screen.raw
    display.close()
