"""A crash fails the test that was running, at once, with its title."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET
from typing import Any

import pytest

QEMU = "--hil-target=qemu"
# Pytest's summary is cut where the terminal ends.
WIDE = {"COLUMNS": "200"}

# What a kernel prints for a WARN_ON, printed by a program.
WARN = """
REPORT = '''------------[ cut here ]------------
WARNING: CPU: 0 PID: 77 at drivers/foo/%(name)s.c:12 %(name)s_open+0x12/0x40 [foo]
Modules linked in: foo(O)
CPU: 0 PID: 77 Comm: cat Tainted: G           O       6.1.0-37-amd64 #1  Debian 6.1.140-1
RIP: 0010:%(name)s_open+0x12/0x40 [foo]
Call Trace:
 <TASK>
 %(name)s_open+0x12/0x40 [foo]
 do_syscall_64+0x55/0xb0
 </TASK>
---[ end trace 0000000000000000 ]---'''

def warn(hil, name="bar", after=""):
    lines = (REPORT % {"name": name}).splitlines()
    text = "".join(f"echo '<4>{line}' > /dev/kmsg\\n" for line in lines)
    hil.run(f"({after}{text}) > /dev/null 2>&1 &" if after else text)
"""


@pytest.mark.machine
def test_a_crash_is_what_the_test_fails_with(inner: Any) -> None:
    inner.write(
        f"""
import pytest
{WARN}
def test_while_it_waits(hil):
    warn(hil, after="sleep 0.5; ")
    hil.console.expect("never", timeout=300)
def test_while_a_command_runs(hil):
    warn(hil, after="sleep 0.5; ")
    hil.run("sleep 300", timeout=None)
def test_nobody_waits(hil):
    warn(hil)
def test_an_assertion_beside_it(hil):
    warn(hil)
    assert hil.name == "something else"
def test_panic(hil):
    hil.run("echo c > /proc/sysrq-trigger")
def test_one_that_is_skipped(hil):
    warn(hil)
    pytest.skip("no matter")
@pytest.mark.xfail
def test_known(hil):
    warn(hil)
def test_after(hil):
    assert hil.run("echo well").ok
"""
    )
    assert inner.run(QEMU, "--junitxml=out.xml", env=WIDE) == 1
    lines = [line for line in inner.text.splitlines() if line.startswith("FAILED")]
    title = "crash: WARNING in bar_open [foo]"
    assert [line.partition("::")[2] for line in lines] == [
        f"test_while_it_waits - {title}",
        f"test_while_a_command_runs - {title}",
        f"test_nobody_waits - {title}",
        f"test_an_assertion_beside_it - {title}",
        "test_panic - crash: panic: sysrq triggered crash",
        f"test_one_that_is_skipped - {title}",
    ]
    assert "1 passed, 1 xfailed" in inner.text
    assert "\ncrash: WARNING in bar_open [foo]\n\nThe test was here:\n" in inner.text
    assert inner.text.count("---- hil: crash ----") == 6
    for case in ET.parse(inner.directory / "out.xml").getroot().iter("testcase"):
        said = {one.get("name"): one.get("value") for one in case.iter("property")}
        assert said["hil_target"] == "qemu"
        assert ("hil_crash" in said) == (case.get("name") != "test_after")
    written = list((inner.directory / ".hil" / "latest").glob("*test_panic*/crash.json"))
    (crash,) = json.loads(written[0].read_text())
    assert crash["kind"] == "panic"
    assert "sysrq_handle_crash" in crash["text"]
    assert "== panic: sysrq" in written[0].with_suffix(".txt").read_text()
    events = (written[0].parent / "events.jsonl").read_text()
    assert '"kind": "crash"' in events


@pytest.mark.machine
def test_it_happened_in_the_test(inner: Any) -> None:
    """And not in a file of the plugin's: editors go there."""
    inner.write(
        """
# A line.
def test_it(hil):
    hil.run("echo '<1>BUG: KASAN: use-after-free in foo+0x1/0x2' > /dev/kmsg")
"""
    )
    assert inner.run(QEMU, "--tb=line", env=WIDE) == 1
    assert re.search(r"/test_\w+\.py:3: crash: KASAN: use-after-free in foo\n", inner.text)


@pytest.mark.machine
def test_a_twin_crashes(inner: Any) -> None:
    """Like any other target of the test, and with its console in the artifacts."""
    inner.write(
        f"""
import pytest
{WARN}
def test_twin(hil):
    twin = hil.fork()
    warn(twin)
    assert twin.run("echo on").ok
def test_panic_of_a_twins_twin(hil):
    hil.fork().fork().run("echo c > /proc/sysrq-trigger")
"""
    )
    assert inner.run(QEMU, env=WIDE) == 1
    lines = [line for line in inner.text.splitlines() if line.startswith("FAILED")]
    assert [line.partition("::")[2] for line in lines] == [
        "test_twin - crash: WARNING in bar_open [foo] (fork-1)",
        "test_panic_of_a_twins_twin - crash: panic: sysrq triggered crash (fork-1-fork-1)",
    ]
    latest = inner.directory / ".hil" / "latest"
    (console,) = latest.glob("*test_twin*/fork-1/console.log")
    assert "WARNING: CPU: 0" in console.read_text()
    assert list(latest.glob("*test_twin*/fork-1/crash.txt"))


@pytest.mark.machine
def test_a_twin_of_an_earlier_test_crashes(inner: Any) -> None:
    inner.write(
        f"""
{WARN}
twins = []
def test_1(hil): twins.append(hil.fork())
def test_2(hil): warn(twins[0])
def test_3(hil): pass
"""
    )
    assert inner.run(QEMU, "--hil-scope=module", env=WIDE) == 1
    assert "::test_2 - crash: WARNING in bar_open [foo] (fork-1)" in inner.text
    assert "1 failed, 2 passed" in inner.text


@pytest.mark.machine
def test_nobody_uses_the_target_any_more(inner: Any) -> None:
    """It crashes in the tear-down of a fixture, after the last test that uses it."""
    inner.write(
        f"""
import pytest
{WARN}
@pytest.fixture(scope="module")
def service(hil):
    yield
    warn(hil)
@pytest.fixture(scope="module")
def second(hil_open):
    found = hil_open()
    yield
    warn(found)
def test_1(service): pass
@pytest.mark.hil(memory="192M")
def test_2(hil): pass
def test_3(second): pass
def test_4(): pass
"""
    )
    assert inner.run(QEMU, "--hil-scope=module", env=WIDE) == 1
    lines = [line for line in inner.text.splitlines() if line.startswith("ERROR")]
    title = "crash: the target qemu crashed after the last test that used it: WARNING in bar_open"
    assert [line.partition("::")[2] for line in lines] == [
        f"test_2 - {title} [foo]",
        f"test_4 - {title} [foo]",
    ]
    assert "3 passed, 2 errors" in inner.text


@pytest.mark.machine
def test_crashes_that_are_wanted_and_those_that_are_no_matter(inner: Any) -> None:
    inner.write(
        f"""
import pytest
from pytest_hil import NoCrash
{WARN}
def test_wanted(hil):
    with hil.crashes("sysrq triggered") as expected:
        hil.run("echo c > /proc/sysrq-trigger")
    assert [one.kind for one in expected.crashes] == ["panic"]
def test_wanted_later(hil):
    with hil.crashes("WARNING in bar_open"):
        warn(hil, after="sleep 0.5; ")
def test_another_one(hil):
    with hil.crashes("KASAN"):
        warn(hil)
def test_none(hil):
    with pytest.raises(NoCrash, match="no crash with a title like 'KASAN' came within 0.1 s"):
        with hil.crashes("KASAN", timeout=0.1):
            pass
def test_an_assertion_within(hil):
    with pytest.raises(AssertionError):
        with hil.crashes("WARNING"):
            warn(hil)
            raise AssertionError
@pytest.mark.hil(crash_ignore=["in bar_open"])
def test_ignored(hil):
    warn(hil)
def test_ignored_by_the_ini_file(hil):
    warn(hil, name="known")
"""
    )
    inner.write("[pytest]\nhil_crash_ignore =\n  WARNING in known_\n", "pytest.ini")
    assert inner.run(QEMU, env=WIDE) == 1
    assert "FAILED test_inner.py::test_another_one - crash: WARNING in bar_open [foo]" in inner.text
    assert "1 failed, 6 passed" in inner.text


@pytest.mark.machine
def test_a_crash_between_two_tests_is_said_so(inner: Any) -> None:
    inner.write(
        """
import time
def pytest_runtest_logfinish(nodeid):
    import test_inner
    if nodeid.endswith("test_first"):
        deadline = time.monotonic() + 60
        while "end trace" not in test_inner.TARGETS[0].console.text():
            assert time.monotonic() < deadline
            time.sleep(0.1)
        time.sleep(1)  # until it is read to its end
""",
        "conftest.py",
    )
    inner.write(
        f"""
{WARN}
TARGETS = []
def test_first(hil):
    TARGETS.append(hil)
    warn(hil, after="sleep 2; ")
def test_second(hil):
    pass
def test_third(hil):
    pass
"""
    )
    assert inner.run(QEMU, "--hil-scope=module", env=WIDE) == 1
    assert (
        "ERROR test_inner.py::test_second - crash: the target qemu crashed before this test, after "
        "the last one that used it: WARNING in bar_open [foo]" in inner.text
    )
    assert "2 passed, 1 error" in inner.text


@pytest.mark.machine
def test_a_crash_that_the_console_does_not_show(inner: Any) -> None:
    # Writing to it adds bits; 512 is that of a warning.
    inner.write(
        f"""
import pytest
{WARN}
TAINT = "echo 512 > /proc/sys/kernel/tainted"
def test_quiet(hil):
    hil.run("dmesg -n 1")
    warn(hil)
    hil.run(TAINT)
def test_nowhere(hil):
    hil.run(TAINT)
def test_wanted(hil):
    with hil.crashes("WARNING"):
        warn(hil)
        hil.run(TAINT)
@pytest.mark.hil(crash_ignore=["^WARNING", "a warning$"])
def test_no_matter(hil):
    warn(hil)
    hil.run(TAINT)
def test_before(hil):
    assert hil.run("echo well").ok
"""
    )
    inner.write("[pytest]\nhil_taint = true\n", "pytest.ini")
    assert inner.run(QEMU, env=WIDE) == 1
    lines = [line for line in inner.text.splitlines() if line.startswith("FAILED")]
    assert [line.partition("::")[2] for line in lines] == [
        "test_quiet - crash: WARNING in bar_open [foo]",
        "test_nowhere - crash: kernel tainted: there was a warning",
    ]
    assert "3 passed" in inner.text
    assert "neither the console nor dmesg has a report of it" in inner.text
    inner.write("[pytest]\n", "pytest.ini")
    assert inner.run(QEMU) == 0, "nobody asked for it"


@pytest.mark.machine
def test_a_shared_machine_that_cannot_be_asked_for_its_taint(inner: Any) -> None:
    """The last test left it switched off, or panicked."""
    inner.write(
        """
def test_off(hil):
    hil.power.off()
def test_on_again(hil):
    hil.power.on()
    with hil.crashes("panic"):
        hil.run("echo c > /proc/sysrq-trigger")
def test_reset(hil):
    hil.reset()
    assert hil.run("echo well").ok
def test_tainted(hil):
    hil.run("echo 512 > /proc/sys/kernel/tainted")
"""
    )
    inner.write("[pytest]\nhil_taint = true\n", "pytest.ini")
    assert inner.run(QEMU, "--hil-scope=module", env=WIDE) == 1
    assert "test_tainted - crash: kernel tainted" in inner.text
    assert "1 failed, 3 passed" in inner.text


@pytest.mark.parametrize(
    ("ini", "said"),
    [
        ("hil_crash_ignore = foo(", "hil_crash_ignore: 'foo(' is no regular expression"),
        ("hil_crash_rules = nothing", "crash rules: 'nothing' is none"),
    ],
)
def test_what_is_wrong_in_the_ini_file(inner: Any, ini: str, said: str) -> None:
    inner.write("def test_it(hil): pass")
    inner.write(f"[pytest]\n{ini}\n", "pytest.ini")
    assert inner.run("-q") == 4
    assert said in inner.text


@pytest.mark.machine
def test_rules_of_a_package_that_cannot_be_used(inner: Any) -> None:
    """Nobody knows whether anything crashed: each test of which the target said something."""
    package = inner.directory / "theirs-1.0.dist-info"
    package.mkdir()
    for name, text in {
        "entry_points.txt": "[pytest_hil.crash_rules]\ntheirs = no_such_module:rules\n",
        "METADATA": "Metadata-Version: 2.1\nName: theirs\nVersion: 1.0\n",
    }.items():
        (package / name).write_text(text)
    inner.write(
        """
import pytest
def say(hil):
    hil.run("echo something > /dev/kmsg")
    hil.console.expect("something")
def test_says(hil):
    say(hil)
def test_skips(hil):
    say(hil)
    pytest.skip("no matter")
def test_fails(hil):
    say(hil)
    assert 0, "its own reason"
def test_tainted(hil):
    hil.run("echo 512 > /proc/sys/kernel/tainted")
"""
    )
    path = {"PYTHONPATH": str(inner.directory), **WIDE}
    said = (
        "crashes cannot be found any more: crash rules 'theirs' (no_such_module:rules): they "
        "cannot be used: ModuleNotFoundError: No module named 'no_such_module'"
    )
    assert inner.run(QEMU, "--deselect=test_inner.py::test_tainted", env=path) == 1
    assert inner.text.count(f"\ninfrastructure: {said}\n") == 3, inner.text
    assert "  Mend or uninstall the package that brings them." in inner.text
    assert "1 failed, 1 deselected, 3 errors" in inner.text
    # One that a test before it has made blind.
    assert inner.run(QEMU, "--hil-scope=module", "-k", "says or fails", env=path) == 1
    assert "2 errors" in inner.text
    # What a console does not show.
    assert inner.run(QEMU, "-o", "hil_taint=true", "-k", "tainted", env=path) == 1
    assert f"\ninfrastructure: {said}\n" in inner.text
    assert "1 error" in inner.text
    assert inner.run(QEMU, "-o", "hil_crash_rules=odd: odd", env=path) == 4
    assert "crash rules 'theirs' (no_such_module:rules)" in inner.text


@pytest.mark.machine
def test_what_a_crash_leaves_is_no_error_of_its_own(inner: Any) -> None:
    """Nor a second reason: clean-ups and further subtests find a machine that answers no more."""
    inner.write(
        """
import pytest
@pytest.fixture
def tidy(hil):
    yield
    hil.run("rm -f /tmp/x")
def test_cleaned_up(hil, tidy):
    hil.run("echo c > /proc/sysrq-trigger")
def test_in_a_subtest(hil, subtests):
    with subtests.test("first"):
        hil.run("echo c > /proc/sysrq-trigger")
    with subtests.test("second"):
        hil.run("true")
"""
    )
    assert inner.run(QEMU, env=WIDE) == 1, inner.text
    assert "infrastructure" not in inner.text, inner.text
    (run,) = (inner.directory / ".hil" / "runs").iterdir()
    results = [json.loads(line) for line in (run / "results.jsonl").read_text().splitlines()]
    assert [(line["outcome"], line["reason"]) for line in results] == [
        ("failed", "crash: panic: sysrq triggered crash")
    ] * 2
    assert "not sent" in results[0]["text"]
