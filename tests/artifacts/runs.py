"""Runs made up for tests of reports: in the files' real format, of any size."""

from __future__ import annotations

import base64
import json
import random
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

from pytest_hil.artifacts.store import Run, TestDir

# 2026-11-20T22:45:01Z
START = 1795214701.0

WORKERS = ("gw0", "gw1", "gw2", "gw3")
CRASHES = (
    ("KASAN: slab-use-after-free Read in drv_interrupt", "kasan", "fatal"),
    ("kernel BUG at drivers/net/drv.c:NNN in drv_xmit", "bug", "fatal"),
    ("WARNING in drv_disconnect", "warning", "warning"),
)


def iso(moment: float) -> str:
    return (datetime.fromtimestamp(moment, UTC)).isoformat(timespec="microseconds")


def write_console(
    directory: Path,
    pieces: Sequence[tuple[float, bytes]],
    *,
    wall: float,
    inherited: int = 0,
    same: Path | None = None,
) -> None:
    """``pieces``: seconds since ``wall``, and what was said; the first few by the template.

    ``same``: a console.log that already says just this.
    """
    directory.mkdir(parents=True, exist_ok=True)
    head = {"t": 0.0, "wall": iso(wall), "console": "qemu", "data": ""}
    with (directory / "console.jsonl").open("ab") as file:
        file.write(json.dumps(head).encode() + b"\n")
        for number, (t, data) in enumerate(pieces):
            file.write(_line(t, data, number < inherited))
    log = directory / "console.log"
    if same is not None and not log.exists():
        log.hardlink_to(same)
        return
    with log.open("ab") as file:
        file.write(b"".join(data for _, data in pieces))


# Large runs say the same thing thousands of times.
@lru_cache(maxsize=64)
def _line(t: float, data: bytes, inherited: bool) -> bytes:
    line: dict[str, Any] = {"t": t}
    if inherited:
        line["inherited"] = True
    try:
        line["data"] = data.decode()
    except UnicodeDecodeError:
        line["base64"] = base64.b64encode(data).decode()
    return json.dumps(line).encode() + b"\n"


def boot(lines: int, seed: int = 0) -> bytes:
    """So many lines as a kernel says them."""
    dice = random.Random(seed)
    parts = (
        "pci 0000:00:04.0",
        "virtio_net virtio0",
        "usb usb1",
        "random",
        "systemd[1]",
        "drv eth0",
    )
    return b"".join(
        b"[%12.6f] %s: state %08x changed, queue %d of %d\r\n"
        % (n / 900, dice.choice(parts).encode(), dice.getrandbits(32), n % 7, dice.randrange(64))
        for n in range(lines)
    )


def add(
    run: Run,
    nodeid: str,
    outcome: str = "passed",
    *,
    target: str = "qemu",
    worker: str = "",
    start: float = START,
    duration: float = 1.0,
    console: Sequence[tuple[float, bytes]] = ((0.1, b"hello\r\n"),),
    inherited: int = 0,
    same: Path | None = None,
    crashes: Sequence[Mapping[str, Any]] = (),
    result: bool = True,
    **facts: Any,
) -> TestDir:
    """One test that has ended so, with its directory."""
    began = time.monotonic() - (time.time() - start)
    test = run.test(nodeid, target, worker=worker, began=began)
    opened = round(duration / 5, 6)
    test.events(
        "ready", machine=target, origin="clone", seconds=opened, description={"arch": "x86_64"}
    )
    write_console(test.path, console, wall=start, inherited=inherited, same=same)
    if crashes:
        (test.path / "crash.json").write_text(json.dumps(list(crashes)))
    if outcome != "interrupted":
        test.finish("failed" if outcome == "rerun" else outcome, duration=duration)
    if result and outcome != "interrupted":
        run.result(
            nodeid=nodeid,
            outcome=outcome,
            worker=worker,
            start=start,
            duration=duration,
            phases={"setup": opened, "call": duration * 0.7, "teardown": duration * 0.1},
            target=target,
            directory=test.path.name,
            **facts,
        )
    return test


def large(root: Path, *, tests: int, console_lines: int = 300, bad: int = 40) -> Run:
    """A run of many tests on two targets and four workers; ``bad`` of them went wrong."""
    dice = random.Random(1)
    run = Run.create(root, argv=["tests", "-n4", "--hil-target=qemu"], targets=["qemu", "rpi4"])
    run.update(
        start=iso(START), versions={"pytest": "9.2.0", "Python": "3.11.7"}, root="/srv/driver"
    )
    ends = dict.fromkeys(WORKERS, START + 2)
    every = max(1, tests // bad)
    log = boot(console_lines)
    cut = len(log) * 2 // 3
    usual: Path | None = None
    for number in range(tests):
        worker = min(ends, key=lambda name: ends[name])
        start = ends[worker]
        duration = round(dice.lognormvariate(0, 0.8) + (14 if number < len(WORKERS) else 0), 4)
        ends[worker] = start + duration + 0.01
        wrong = number % every == every // 2
        file = ("net/test_link.py", "usb/test_hid.py", "fs/test_ext4.py", "test_boot.py")[
            number % 4
        ]
        name = ("test_link_up", "test_burst", "test_recovers", "test_counts")[number // 4 % 4]
        outcome, crashes = "passed", list[dict[str, Any]]()
        facts: dict[str, Any] = {}
        said = [(0.02, log[:cut]), (0.05, log[cut:]), (0.3, b"# \r\n")]
        if wrong:
            outcome = dice.choice(("failed", "failed", "failed", "error"))
            facts = {
                "reason": f"AssertionError: assert {number} == {number + 1}",
                "text": f"    def {name}(hil):\n>       assert count() == {number + 1}\n"
                f"E       AssertionError: assert {number} == {number + 1}\n\n{file}:12: Error",
            }
            if dice.random() < 0.4 and outcome == "failed":
                title, kind, severity = dice.choice(CRASHES)
                text = (
                    f"BUG: {title}\nCPU: 0 PID: 93 Comm: burst Not tainted\n"
                    "Call Trace:\n drv_poll+0x44/0x120\n drv_irq+0x1c/0x80\n---[ end trace ]---"
                )
                crashes = [
                    {
                        "kind": kind,
                        "severity": severity,
                        "title": title,
                        "text": text,
                        "follow_up": False,
                    }
                ]
                said.append((0.6, text.replace("\n", "\r\n").encode() + b"\r\n"))
                facts["reason"] = f"the target crashed: {title}"
        elif number % 37 == 5:
            outcome, facts = "skipped", {"reason": "lacks usb3"}
        made = add(
            run,
            f"tests/{file}::{name}[{('hid', 'cdc', 'mass')[number % 3]}-{number}]",
            outcome,
            target="rpi4" if number % 5 == 0 else "qemu",
            worker=worker,
            start=start,
            duration=duration,
            console=said,
            inherited=1,
            same=None if crashes else usual,
            crashes=crashes,
            markers=["slow"] if number % 11 == 0 else ["smoke"] if number % 3 == 0 else [],
            **facts,
        )
        if not crashes:
            usual = made.path / "console.log"
    files = {f"drivers/net/drv_{n}.c": {"lines": [37 * n % 190, 190]} for n in range(1, 60)}
    (run.path / "coverage.json").write_text(json.dumps({"files": files}))
    run.finish()
    run.update(end=iso(max(ends.values()) + 1))
    return run
