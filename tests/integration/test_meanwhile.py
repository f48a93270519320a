"""What one thread does while another closes the target, or its QEMU ends."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pytest_hil.bench import Bench, Settings
from pytest_hil.errors import ChannelLost, ConfigError, HilError, MachineError
from pytest_hil.qemu import runtime
from pytest_hil.qemu.guest import Guest

pytestmark = pytest.mark.machine


@pytest.fixture(autouse=True)
def own_runtime(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))


@pytest.fixture
def own(tmp_path: Path) -> Bench:
    return Bench(Settings(root=tmp_path, accel="tcg"))


ACTS: dict[str, Callable[[Guest], object]] = {
    "run": lambda guest: guest.run("sleep 100"),
    "expect": lambda guest: guest.console.expect("never said"),
    "snapshot": lambda guest: guest.snapshot(),
    "fork": lambda guest: guest.fork(),
    "restore": lambda guest: guest.restore(guest.snapshot()),
    "cycle": lambda guest: guest.power.cycle(),
}


@pytest.mark.parametrize("act", ACTS)
@pytest.mark.parametrize("delay", [0.02, 0.2])
def test_closing_under_a_call_ends_it_and_leaves_nothing(
    own: Bench, act: str, delay: float
) -> None:
    guest = own.open(own.target("qemu"))
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(ACTS[act], guest)
        threading.Event().wait(delay)
        guest.close()
        began = time.monotonic()
        error = call.exception(60)
        assert time.monotonic() - began < 10
    assert error is None or isinstance(error, HilError)
    assert own.room.occupants() == []
    assert not list((runtime.base() / runtime.owner_name()).glob("*"))
    own.close()


def test_a_machine_that_is_opened_while_the_bench_closes_is_ended(own: Bench) -> None:
    target = own.target("qemu")
    own.open(target).close()
    factory = own.factory(target)
    with ThreadPoolExecutor(1) as pool:
        with own.cache.locked("templates", "other"):  # nothing that concerns it
            call = pool.submit(own.open, target)
            own.close()
        with pytest.raises(MachineError, match="closed"):
            call.result(60)
    factory.prepare()
    assert own.room.occupants() == []


def test_who_waits_for_an_event_hears_that_qemu_is_gone(guest: Guest) -> None:
    with guest.machine.monitor.waiter("NEVER") as waiter:
        threading.Timer(0.2, guest.machine.process.kill).start()
        began = time.monotonic()
        with pytest.raises(ChannelLost, match="lost before NEVER"):
            waiter.wait(60)
        assert time.monotonic() - began < 10


def test_a_listener_that_fails_does_not_cost_the_monitor(guest: Guest) -> None:
    def fail(_what: object) -> None:
        raise OSError("no room for the log")

    guest.machine.monitor.subscribe(fail)
    guest.machine.monitor.log = fail
    with guest.machine.monitor.waiter("STOP") as stopped:
        guest.machine.monitor.execute("stop")
        stopped.wait(10)
    guest.machine.monitor.execute("cont")
    assert guest.run("echo on").stdout == "on\n"


def test_a_qemu_that_would_leave_us_is_refused(bench: Bench) -> None:
    with pytest.raises(ConfigError, match=r"extra_args.*nobody ends"):
        bench.open(bench.target("qemu", extra_args=["-daemonize"]))


def test_a_snapshot_may_have_any_name(guest: Guest) -> None:
    saved = guest.snapshot("before/after: " + "x" * 300)
    assert saved.name == "before/after: " + "x" * 300
    guest.restore(saved)
