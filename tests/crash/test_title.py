"""Titles: what is the same each time, and which frame says something."""

from __future__ import annotations

import pytest

from pytest_hil.crash import title
from pytest_hil.crash.machinery import is_machinery


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("at 0xffffffff81234567 of 12", "at ADDR of N"),
        ("foo.isra.0+0x12/0x40 [mod]", "foo [mod]"),
        ("(____ptrval____) is -3.5 MB", "ADDR is N MB"),
        ("ffff8881032a7c08 of kmalloc-64", "ADDR of kmalloc-N"),
        ("u8 and x86 and i2c stay", "u8 and x86 and i2c stay"),
        ("deadbeef is a word, dead10cc is not", "deadbeef is a word, ADDR is not"),
        ("  much   room !", "much room"),
    ],
)
def test_normal(text: str, normal: str) -> None:
    assert title.normal(text).rstrip(" !") == normal.rstrip(" !")


def test_a_title_has_an_end() -> None:
    assert len(title.normal("word " * 100)) <= 120


@pytest.mark.parametrize(
    "line",
    [
        " foo_bar+0x12/0x40 [mod]",
        " [<ffffffff81234567>] foo_bar+0x12/0x40 [mod]",
        "[<ffffffff80004b5c>] foo_bar.constprop.0+0x12/0x40 [mod]",
        "[<bf0a5018>] (foo_bar [mod]) from [<c05b1a3c>] (caller+0x60/0x1c4)",
        " foo_bar [mod] from caller+0x60/0x1c4",
        " foo_bar.part.3.cold+0x12/0x40 [mod 0123456789abcdef0123456789abcdef01234567]",
    ],
)
def test_frames_of_all_architectures(line: str) -> None:
    assert [str(frame) for frame in title.frames([line])] == ["foo_bar [mod]"]


@pytest.mark.parametrize(
    "line",
    [
        "RIP: 0010:foo+0x1/0x2",
        "RIP: 0010:[<ffffffff8150c7a3>]  [<ffffffff8150c7a3>] foo+0x13/0x60",
        "IP: [<ffffffff8150c7a3>] foo+0x13/0x60",
        "PC is at foo+0x18/0x70",
        "pc : foo+0x1c/0x84",
        "epc : foo+0x1e/0x5c",
        "EIP: foo+0x1e/0x5c",
    ],
)
def test_program_counters_of_all_architectures(line: str) -> None:
    assert [str(frame) for frame in title.counters([line])] == ["foo"]


def test_guesses_and_other_traces_are_no_frames() -> None:
    text = [" ? guess+0x1/0x2", " first+0x1/0x2", "Allocated by task 7:", " other+0x1/0x2"]
    assert [str(frame) for frame in title.frames(text)] == ["first"]


def test_the_first_that_means_something() -> None:
    trace = [" dump_stack+0x1/0x2", " kasan_report+0x1/0x2", " memcpy+0x1/0x2", " mine+0x1/0x2"]
    assert title.where(trace) == " in mine"
    assert title.where(trace, "kfree+0x1/0x2") == " in mine"
    assert title.where(trace, "named+0x1/0x2") == " in named"
    assert title.where(trace[:3]) == " in dump_stack"
    assert title.where([]) == ""


@pytest.mark.parametrize("name", ["panic_button_press", "schedule_delivery", "diet", "uptime_show"])
def test_a_likeness_of_names_does_not_make_machinery(name: str) -> None:
    assert not is_machinery(name)


@pytest.mark.parametrize("name", ["asm_exc_page_fault", "__kasan_slab_free", "_raw_spin_lock_irq"])
def test_machinery(name: str) -> None:
    assert is_machinery(name)


@pytest.mark.parametrize(
    ("name", "same"),
    [("kworker/u8:2", "kworker"), ("sh", "sh"), ("test123", "testN"), ("python3", "python3")],
)
def test_tasks(name: str, same: str) -> None:
    assert title.task(name) == same
