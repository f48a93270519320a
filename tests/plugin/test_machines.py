"""The fixtures on real machines."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.machine

QEMU = "--hil-target=qemu"


def records(directory: Path) -> dict[str, dict[str, Any]]:
    """The latest run's meta.json files, by the test's name."""
    found = {}
    for path in (directory / ".hil" / "latest").resolve().glob("*/meta.json"):
        meta = json.loads(path.read_text())
        found[meta["nodeid"].rpartition("::")[2]] = meta | {"path": path.parent}
    return found


def assert_nothing_is_left(inner: Any) -> None:
    assert inner.processes() == []
    assert inner.left() == []


SHARING = """
import pytest

def test_a(hil): hil.run("echo a >> /tmp/log")
def test_b(hil):
    hil.run("echo b >> /tmp/log")
    assert hil.run("cat /tmp/log").stdout == {shared!r}
@pytest.mark.hil(memory="300M")
def test_other(hil):
    assert hil.run("ls /tmp").stdout == ""
"""


@pytest.mark.parametrize(
    ("scope", "shared", "machines"),
    [("function", "b\n", 3), ("module", "a\nb\n", 2), ("session", "a\nb\n", 2)],
)
def test_scopes(inner: Any, scope: str, shared: str, machines: int) -> None:
    inner.write(SHARING.format(shared=shared))
    inner.write(
        "def test_c(hil): assert hil.run('cat /tmp/log', check=False).exit_code == "
        f"{0 if scope == 'session' else 1}",
        "test_second.py",
    )
    assert inner.run(QEMU, f"--hil-scope={scope}", "-o", "log_level=INFO") == 0, inner.text
    found = records(inner.directory)
    assert set(found) == {"test_a", "test_b", "test_other", "test_c"}
    assert {meta["outcome"] for meta in found.values()} == {"passed"}
    assert all((meta["path"] / "console.log").exists() for meta in found.values())
    assert_nothing_is_left(inner)


def test_a_feature_that_only_a_machine_tells(inner: Any) -> None:
    inner.write(
        """
import pytest

def test_any(hil): pass
@pytest.mark.hil(features=["kvm"])
def test_kvm(hil): pass
@pytest.mark.hil(features=["tcg"])
def test_tcg(hil): pass
        """
    )
    for scope in ("function", "module"):
        assert inner.run(QEMU, "--hil-accel=tcg", f"--hil-scope={scope}", "-rs") == 0, inner.text
        assert "2 passed, 1 skipped" in inner.text
        assert "the target qemu lacks the feature kvm" in inner.text
        assert "SKIPPED [1] test_inner.py:5: the target" in inner.text


def test_a_fixture_of_a_module_may_use_a_shared_target(inner: Any) -> None:
    inner.write(
        """
import pytest

@pytest.fixture(scope="module")
def server(hil, hil_open):
    hil.run("touch /tmp/server")
    return hil, hil_open()

def test_a(server, hil): assert server[0] is hil
def test_b(server, hil):
    hil.run("test -e /tmp/server")
    server[1].run("true")
        """
    )
    assert inner.run(QEMU, "--hil-scope=module") == 0, inner.text
    assert_nothing_is_left(inner)


def test_what_a_test_opens_ends_with_it(inner: Any) -> None:
    inner.write(
        """
import pytest
from pytest_hil.errors import MachineError
opened = []

def test_opens(hil, hil_open):
    first, second = hil_open(), hil_open("qemu", memory="300M")
    assert len({t.run("hostname").stdout for t in (hil, first, second)}) == 3
    opened.extend([first, second])

def test_they_are_gone():
    assert [target.closed for target in opened] == [True, True]

def test_a_wrong_name(hil_open):
    from pytest_hil import ConfigError
    with pytest.raises(ConfigError, match="did you mean 'qemu'"):
        hil_open("qemo")

def test_no_name(hil_open):
    from pytest_hil import ConfigError
    with pytest.raises(ConfigError, match="5 is no target's name"):
        hil_open(5)
        """
    )
    assert inner.run(QEMU) == 0, inner.text
    found = records(inner.directory)
    place = found["test_opens"]["path"]
    for name in (".", "2-qemu", "3-qemu"):
        assert "pytest-hil: ready" in (place / name / "console.log").read_text()
    assert_nothing_is_left(inner)


FAILING = """
import os, signal

def test_passes(hil):
    hil.run("echo quiet as a mouse > /dev/kmsg")

def test_fails(hil, hil_open):
    hil_open().run("echo the other one > /dev/kmsg")
    hil.run("echo last words > /dev/kmsg; touch /tmp/evidence")
    hil.console.expect("last words")
    assert 1 == 2

def test_dies(hil):
    os.kill(hil.machine.process.pid, signal.SIGKILL)
    hil.console.expect("never said")

def test_dies_and_fails(hil):
    os.kill(hil.machine.process.pid, signal.SIGKILL)
    hil.console.wait_closed(10)
    assert 1 == 2
"""


@pytest.mark.parametrize("more", [(), ("-n2",)], ids=["alone", "xdist"])
def test_the_report_of_a_failure(inner: Any, more: tuple[str, ...]) -> None:
    inner.write(FAILING)
    assert inner.run(QEMU, *more) == 1
    text = inner.text
    assert "2 failed, 1 passed, 1 error" in text
    assert "quiet as a mouse" not in text
    assert text.count("- hil: what happened -") == 3
    assert text.count("- hil: what happened to 2-qemu -") == 1
    assert "infrastructure: the machine qemu died: QEMU ended with signal SIGKILL" in text
    assert "it died    the machine qemu died" in text
    failing = records(inner.directory)["test_fails"]
    assert f"artifacts  {failing['path']}\n" in text
    console = text.partition("- hil: console (last 40 lines) -")[2]
    assert "last words" in text
    assert "the other one" in text
    assert console
    assert [failing["outcome"], records(inner.directory)["test_dies"]["outcome"]] == [
        "failed",
        "error",
    ]
    assert_nothing_is_left(inner)


def test_a_failed_machine_is_kept(inner: Any) -> None:
    inner.write(FAILING)
    assert inner.run(QEMU, "--hil-keep=failed", "-k", "not dies_and") == 1
    assert "kept       pytest-hil open test_inner.py::test_fails" in inner.text
    assert "HilWarning: the machine of test_inner.py::test_dies was not kept: it had died" in (
        inner.text
    )
    found = records(inner.directory)
    assert found["test_fails"]["machine"]["target"] == "qemu"
    assert (found["test_fails"]["path"] / "machine" / "manifest.json").is_file()
    assert not (found["test_passes"]["path"] / "machine").exists()
    assert found["test_dies"]["not_kept"] == "it had died"
    assert_nothing_is_left(inner)


def test_one_that_is_off_is_not_kept(inner: Any) -> None:
    inner.write("def test_off(hil):\n    hil.power.off()\n    assert 0\n")
    assert inner.run(QEMU, "--hil-keep=failed") == 1
    said = "the target qemu is switched off: it cannot save its state"
    assert f"HilWarning: the machine of test_inner.py::test_off was not kept: {said}" in inner.text
    (found,) = records(inner.directory).values()
    assert found["not_kept"].startswith(said)
    assert not (found["path"] / "machine").exists()


def test_of_several_the_one_that_crashed_is_kept(inner: Any) -> None:
    """Or one that can be kept: not the one that is off."""
    inner.write(
        """
def test_second_crashes(hil, hil_open):
    hil_open().run("echo c > /proc/sysrq-trigger")

def test_first_is_off(hil, hil_open):
    hil_open()
    hil.power.off()
    assert 0

def test_only_opened(hil_open):
    hil_open()
    assert 0
        """
    )
    assert inner.run(QEMU, "--hil-keep=failed") == 1
    found = records(inner.directory)
    labels = {name: found[name]["machine"]["label"] for name in found}
    assert labels == {
        "test_second_crashes": "2-qemu",
        "test_first_is_off": "2-qemu",
        "test_only_opened": "2-qemu",
    }
    # It is said where the rest about that one is.
    for name, label in labels.items():
        story = inner.text.partition(f"artifacts  {found[name]['path']}/{label}\n")[2]
        assert f"kept       pytest-hil open test_inner.py::{name}\n" in story[:400], inner.text
    assert inner.text.count("kept       ") == 3


def test_it_is_kept_before_fixtures_change_it(inner: Any) -> None:
    inner.write(
        """
import pytest
from pathlib import Path

@pytest.fixture
def tidy(hil):
    hil.run("touch /tmp/here")
    yield
    hil.run("rm /tmp/here")

@pytest.mark.hil(memory="300M")
def test_it(tidy, hil): pass
        """
    )
    assert inner.run(QEMU, "--hil-keep=all") == 0, inner.text
    meta = records(inner.directory)["test_it"]
    assert meta["machine"]["overrides"] == {"memory": "300M"}

    from pytest_hil.bench import Bench, Settings

    with Bench(Settings(root=inner.directory, cache=inner.cache)) as bench:
        target = bench.target("qemu", **meta["machine"]["overrides"])
        guest = bench.open_saved(target, meta["path"] / "machine")
        assert guest.run("ls /tmp").stdout == "here\n"


def test_the_next_machine_is_prepared(inner: Any) -> None:
    inner.write(
        """
import time

def test_a(hil): time.sleep(1.5)
def test_b(hil): assert hil.origin.how == "prepared"
def test_plain(): time.sleep(1.5)
def test_c(hil): assert hil.origin.how == "prepared"
        """
    )
    assert inner.run(QEMU) == 0, inner.text


def test_no_templates(inner: Any) -> None:
    inner.write("def test_a(hil): assert hil.origin_text == 'boot (not wanted)'")
    assert inner.run(QEMU, "--hil-no-templates", "-v") == 0, inner.text
    assert ", no template: each machine is booted" in inner.text
    assert "hil: qemu: booting, " in inner.text


def test_the_header_when_all_is_there(inner: Any) -> None:
    inner.write("def test_a(hil): pass")
    assert inner.run(QEMU, "--hil-accel=tcg") == 0, inner.text
    assert inner.run(QEMU, "--hil-accel=tcg") == 0, inner.text
    assert ", TCG, image debian ready, template ready\n" in inner.text
    # Nothing took long, and nothing was out of the ordinary.
    lines = [line for line in inner.text.splitlines() if "hil: " in line]
    assert len(lines) == 2
    assert lines[1].startswith("hil: report: .hil/runs/")


def test_the_hook(inner: Any) -> None:
    inner.write(
        """
ready = []

def pytest_hil_ready(target, item, label):
    target.run(f"echo '{item.name} {label}' >> /tmp/hooked")
        """,
        "conftest.py",
    )
    inner.write(
        """
def test_a(hil, hil_open):
    assert hil.run("cat /tmp/hooked").stdout == "test_a \\n"
    assert hil_open().run("cat /tmp/hooked").stdout == "test_a 2-qemu\\n"
        """
    )
    assert inner.run(QEMU) == 0, inner.text


def test_runs_are_pruned_and_an_empty_one_is_none(inner: Any) -> None:
    inner.write("def test_a(hil): pass\ndef test_plain(): pass\n")
    runs = inner.directory / ".hil" / "runs"
    for count in (1, 2, 2):
        assert inner.run(QEMU, "-o", "hil_artifacts_keep=2", "-k", "test_a") == 0, inner.text
        assert len(list(runs.iterdir())) == count
    latest = (inner.directory / ".hil" / "latest").resolve()
    before = sorted(runs.iterdir())
    for more in ((), ("-n1",)):
        assert inner.run(QEMU, "-k", "test_plain", *more) == 0, inner.text
        assert sorted(runs.iterdir()) == before
        assert (inner.directory / ".hil" / "latest").resolve() == latest


def test_artifacts_that_cannot_be_written_are_one_warning(inner: Any) -> None:
    inner.write("def test_a(hil): pass\ndef test_b(hil): pass\n")
    (inner.directory / ".hil").write_text("a file")
    assert inner.run(QEMU, "-W", "error") == 0, inner.text
    assert inner.text.count("HilWarning: the artifacts of this run are incomplete") == 1
    assert "2 passed, 1 warning" in inner.text


def test_a_test_that_changes_its_path_is_alone_with_that(inner: Any) -> None:
    inner.write(
        """
def test_a(hil, hil_open, monkeypatch):
    monkeypatch.setenv("PATH", "")
    hil_open(smp=2)  # one that was not made ready ahead
def test_b(hil): pass
"""
    )
    inner.run(QEMU)
    assert re.search(r"ERROR test_inner.py::test_a - infrastructure: .+ is not on PATH", inner.text)
    assert "1 passed, 1 error" in inner.text


def test_kvm_that_does_not_work_is_said_in_short_and_known_from_then_on(inner: Any) -> None:
    inner.write("def test_it(hil): pass")
    if inner.run(QEMU, "--hil-accel=kvm") == 0:
        pytest.skip("KVM works here")
    assert "--hil-accel=kvm: KVM cannot be used here: " in inner.text
    assert "def choose" not in inner.text
    assert inner.run(QEMU, "--hil-accel=kvm") == pytest.ExitCode.USAGE_ERROR
    assert "ERROR: --hil-accel=kvm: KVM cannot be used here: " in inner.text


def test_what_a_machine_says_does_not_steer_the_terminal(inner: Any) -> None:
    inner.write(
        r"""
def test_it(hil):
    hil.console.send("")
    hil.run(r"printf 'A\016B\007\302\233C\rD\n' > /dev/console")
    hil.console.expect("D")
    hil.run(r"printf '\033[2J\016' >&2; false")
"""
    )
    assert inner.run(QEMU) == 1
    assert "A␎B␇\ufffdC␍D" in inner.text
    assert "␛[2J␎" in inner.text
    assert not set("\x0e\x07\x1b\x9b") & set(inner.text)


def test_who_switches_it_off_is_told_so(inner: Any) -> None:
    """Whatever they use then: the console too, which is no error of our side's."""
    inner.write(
        """
import pytest
from pytest_hil import NotThere

@pytest.mark.parametrize("use", ["sendline", "expect"])
def test_it(hil, use):
    hil.power.off()
    with pytest.raises(NotThere, match="the target qemu is switched off"):
        getattr(hil.console, use)("x")
    hil.power.on()
    hil.console.sendline("echo $((6 * 7))")
    hil.console.expect("42")
"""
    )
    assert inner.run(QEMU) == 0
    assert "2 passed" in inner.text
