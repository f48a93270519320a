"""Records as a kernel leaves them in pstore: put together, inflated, read to their last crash."""

from __future__ import annotations

import zlib

import pytest

from pytest_hil.crash import Rules, Severity, pstore

WARNING = """\
<4>[    2.000000] ------------[ cut here ]------------
<4>[    2.000001] WARNING: CPU: 0 PID: 77 at drivers/foo/bar.c:12 bar_open+0x12/0x40 [foo]
<4>[    2.000002] CPU: 0 PID: 77 Comm: cat Not tainted 6.1.0-56-amd64 #1  Debian 6.1.192-2
<4>[    2.000003] RIP: 0010:bar_open+0x12/0x40 [foo]
<4>[    2.000004] Call Trace:
<4>[    2.000005]  <TASK>
<4>[    2.000006]  bar_open+0x12/0x40 [foo]
<4>[    2.000007]  </TASK>
<4>[    2.000008] ---[ end trace 0000000000000000 ]---
"""

# The end of what a kernel of Debian left in ramoops.
PANIC = """\
<6>[    3.604716] sysrq: Trigger a crash
<0>[    3.604892] Kernel panic - not syncing: sysrq triggered crash
<4>[    3.605065] CPU: 0 PID: 122 Comm: sh Not tainted 6.1.0-56-amd64 #1  Debian 6.1.192-2
<4>[    3.605224] Hardware name: QEMU Standard PC (Q35 + ICH9, 2009), BIOS 1.16.2-debian-1.16.2-1
<4>[    3.605373] Call Trace:
<4>[    3.606027]  <TASK>
<4>[    3.606395]  dump_stack_lvl+0x44/0x5c
<4>[    3.607055]  panic+0x118/0x2f4
<4>[    3.607083]  ? _printk+0x68/0x83
<4>[    3.607101]  sysrq_handle_crash+0x16/0x20
<4>[    3.607133]  __handle_sysrq.cold+0x44/0x11c
<4>[    3.607152]  write_sysrq_trigger+0x24/0x40
<4>[    3.608834]  </TASK>
<0>[    3.610023] Kernel Offset: disabled
"""

SYSRQ = "panic: sysrq triggered crash"


def titles(*records: tuple[str, str | bytes]) -> list[str]:
    as_bytes = [
        (name, text if isinstance(text, bytes) else text.encode()) for name, text in records
    ]
    return [crash.title for crash in pstore.crashes(as_bytes, Rules())]


def test_what_came_before_is_not_what_it_died_of() -> None:
    assert titles(("dmesg-ramoops-0", f"Panic#1 Part1\n{WARNING}{PANIC}")) == [SYSRQ]


def test_parts_are_put_together() -> None:
    """The end is in the first; in the order of numbers, 10 comes after 9."""
    lines = PANIC.splitlines(keepends=True)
    parts = ["".join(lines[at:]) if at == 9 else lines[at] for at in range(9, -1, -1)]
    records = [
        (f"dmesg-ramoops-{number}", f"Panic#1 Part{number + 1}\n{text}")
        for number, text in enumerate(parts)
    ]
    assert len(records) == 10
    assert titles(*sorted(records)) == [SYSRQ]
    assert titles(("dmesg-ramoops-0", f"Panic#1 Part1\n{parts[0]}")) != [SYSRQ]


def test_several_dumps() -> None:
    records = [
        ("dmesg-ramoops-0", f"Oops#1 Part1\n{WARNING}"),
        ("dmesg-ramoops-1", f"Panic#2 Part1\n{WARNING}{PANIC}"),
        ("dmesg-ramoops-2", f"Panic#1 Part1\n{PANIC}"),
    ]
    assert titles(*records) == ["WARNING in bar_open [foo]", SYSRQ]


def test_what_a_disk_s_backend_puts_before_it() -> None:
    assert titles(("dmesg-pstore_blk-0", f"Panic: Total 3 times\nPanic#1 Part1\n{PANIC}")) == [
        SYSRQ
    ]


def test_one_that_the_kernel_did_not_inflate() -> None:
    deflate = zlib.compressobj(wbits=-11)
    data = deflate.compress(f"Panic#1 Part1\n{PANIC}".encode()) + deflate.flush()
    assert titles(("dmesg-ramoops-0.enc.z", data)) == [SYSRQ]
    assert titles(("dmesg-ramoops-0.enc.z", b"\xff" * 100)) == []


@pytest.mark.parametrize(("reason", "severity"), [("Panic", "fatal"), ("Oops", "error")])
def test_a_log_without_a_report(reason: str, severity: str) -> None:
    record = ("dmesg-erst-1", f"{reason}#1 Part1\n<6>[    3.0] well\n".encode())
    (crash,) = pstore.crashes([record], Rules())
    assert (crash.kind, crash.severity) == ("pstore", Severity(severity))
    assert crash.title.startswith(f"{reason.lower()}: pstore has the kernel's log")
    assert "well" in crash.text


def test_a_clean_shutdown_is_no_crash() -> None:
    assert titles(("dmesg-ramoops-0", "Shutdown#1 Part1\n<6>[    3.0] reboot: Restarting\n")) == []
    assert titles(("dmesg-ramoops-0", "")) == []
