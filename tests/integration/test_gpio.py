"""The GPIO driver with the real libgpiod, on a real chip of a real kernel.

The chip is the PL061 of QEMU's arm64 machine, so the driver runs in that machine. What the lines
are told is seen from the other side: by QEMU, which traces each change of an output.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from shutil import which
from typing import Any

import pytest

import pytest_hil
from pytest_hil.bench import Bench, Settings
from pytest_hil.qemu.guest import Guest

pytestmark = pytest.mark.slow

QEMU = "qemu-system-aarch64"
NAMES = ["", "relay", "", "", "lamp", "", "", ""]
PYTHONPATH = "/tmp/driver.zip:/tmp/site"

BOARDS = """
[image.gpio]
arch = "aarch64"
packages = ["python3"]
modules = ["gpio_keys"]

[target.gpio]
backend = "qemu"
arch = "aarch64"
image = "gpio"
extra_args = ["-dtb", "{tree}", "-trace", "pl061_set_output", "-D", "{trace}"]
"""

PRELUDE = """
import os
from pathlib import Path
import gpiod
from pytest_hil.board.power.gpio import GpioOptions, GpioPower
from pytest_hil.board.power.switch import Switch, SwitchOptions
from pytest_hil.errors import HilError

CHIP = "/dev/gpiochip0"

def power(line, low=False, chip=CHIP):
    return GpioPower(GpioOptions(chip, line, low))

def error(act):
    try:
        return act()
    except HilError as error:
        return type(error).__name__, error.message

def info(line):
    with gpiod.Chip(CHIP) as chip:
        found = chip.get_line_info(line)
        return found.consumer, found.direction.name
"""


class Lines:
    """A machine with a chip of eight lines, of which some have names."""

    def __init__(self, guest: Guest, trace: Path) -> None:
        self.guest = guest
        self._trace = trace
        self._read = trace.stat().st_size

    def python(self, code: str) -> Any:
        """Run a program in the machine; what it printed, as the value that it is."""
        argv = ["python3", "-c", PRELUDE + code]
        return ast.literal_eval(self.guest.run(argv, env={"PYTHONPATH": PYTHONPATH}).stdout)

    def changes(self) -> list[tuple[int, int]]:
        """Which lines changed to which level since the last time that this was asked."""
        said = self._trace.read_text()[self._read :]
        self._read += len(said)
        found = re.findall(r"pl061_set_output .* setting output (\d+) to (\d)", said)
        return [(int(line), int(level)) for line, level in found]


@pytest.fixture(scope="module")
def lines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lines]:
    for program in (QEMU, "fdtput"):
        if which(program) is None:
            pytest.skip(f"no {program} on this host")
    root = tmp_path_factory.mktemp("gpio")
    tree, trace = root / "machine.dtb", root / "trace"
    run([QEMU, "-machine", f"virt,dumpdtb={tree}", "-display", "none"])
    run(["fdtput", "-t", "s", str(tree), "/pl061@9030000", "gpio-line-names", *NAMES])
    boards = root / "boards.toml"
    boards.write_text(BOARDS.format(tree=tree, trace=trace))
    # Only this machine has this tree: a template of it would be for nobody.
    settings = Settings(root=root, boards=boards, accel="tcg", templates=False, boot_timeout=180)
    with Bench(settings) as bench:
        guest = bench.open(bench.target("gpio"))
        put_driver(guest, root)
        yield Lines(guest, trace)
        guest.close()


def put_driver(guest: Guest, root: Path) -> None:
    """This package, and the extra ``gpio`` for the machine's own Python."""
    package = Path(pytest_hil.__file__).parent
    with zipfile.ZipFile(root / "driver.zip", "w") as archive:
        for path in package.rglob("*.py"):
            archive.write(path, path.relative_to(package.parent))
    guest.put(root / "driver.zip", "/tmp/driver.zip")
    said = guest.run(["python3", "-c", "import sys; print('%d.%d' % sys.version_info[:2])"]).stdout
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    pip += ["--no-deps", "--only-binary=:all:", f"--python-version={said.strip()}"]
    run([*pip, "--platform=manylinux_2_17_aarch64", f"--dest={root}", "gpiod>=2"])
    guest.put(next(root.glob("gpiod-*.whl")), "/tmp/gpiod.whl")
    guest.run("python3 -m zipfile -e /tmp/gpiod.whl /tmp/site")


def run(argv: Sequence[str]) -> None:
    done = subprocess.run(
        argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(("line", "number"), [(2, 2), ("lamp", 4)])
def test_on_off_and_what_stays(lines: Lines, line: int | str, number: int) -> None:
    said = lines.python(f"""
switch = Switch(power({line!r}), SwitchOptions(off_seconds=0))
found = [switch.read(), info({number})]
switch.on()
found += [switch.read(), info({number})]
switch.cycle()
switch.close()
print([*found, power({line!r}).read(), info({number})])
""")
    held, left = ("pytest-hil", "OUTPUT"), (None, "OUTPUT")
    assert said == [False, (None, "INPUT"), True, held, True, left]
    assert lines.changes() == [(number, 1), (number, 0), (number, 1)]


def test_active_low(lines: Lines) -> None:
    said = lines.python("""
one = power("relay", low=True)
found = [one.read()]
one.on()
found.append(one.read())
one.off()
found.append(one.read())
one.on()
print(found)
""")
    assert said == [True, True, False]
    # Switched on it is as it was: never a level that nobody asked for.
    assert lines.changes() == [(1, 1), (1, 0)]


def test_somebody_else_has_it(lines: Lines) -> None:
    said = lines.python("""
one, other = power(5), power(5)
one.on()
found = [error(other.on), error(other.read)]
one.close()
other.on()
print([*found, other.read()])
""")
    busy = ("PowerError", "line 5 of /dev/gpiochip0 is in use")
    assert said == [busy, busy, True]
    assert lines.changes() == [(5, 1)]


def test_the_kernel_has_it(lines: Lines) -> None:
    """That of the machine's power button."""
    said = lines.python("print([error(power(3).on), info(3)])")
    busy = ("PowerError", "line 3 of /dev/gpiochip0 is in use")
    assert said == [busy, ("GPIO Key Poweroff", "INPUT")]
    assert lines.changes() == []


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ("8", "there is no line 8 of /dev/gpiochip0"),
        ("'pump'", "there is no line pump of /dev/gpiochip0"),
        ("1, chip='/dev/gpiochip7'", "there is no /dev/gpiochip7"),
        ("1, chip='/dev/null'", "/dev/null is no GPIO chip"),
        ("1, chip='/tmp/driver.zip'", "/tmp/driver.zip is no GPIO chip"),
    ],
)
def test_not_there(lines: Lines, wrong: str, said: str) -> None:
    code = f"one = power({wrong}); print([error(one.on), error(one.read)])"
    assert lines.python(code) == [("InfrastructureError", said)] * 2


def test_not_permitted(lines: Lines) -> None:
    code = "os.setuid(65534); one = power(1); print([error(one.on), error(one.read)])"
    said = ("HostLacks", "this user may not open /dev/gpiochip0")
    assert lines.python(code) == [said] * 2


def test_an_adapter_that_is_plugged_in_anew(lines: Lines) -> None:
    """A chip of which a line is held goes away, and comes back: under another number, for good
    (Linux 6.1: gpiod_free_commit() forgets the chip that is gone). So this is the last test.
    """
    lines.guest.run("rmmod gpio_keys")
    said = lines.python("""
driver = Path("/sys/bus/amba/drivers/pl061_gpio")
# As udev would make it.
link = Path("/tmp/relays")

def unplug():
    (driver / "unbind").write_text("9030000.pl061")
    link.unlink(missing_ok=True)

def plug_in():
    (driver / "bind").write_text("9030000.pl061")
    chip, = Path("/dev").glob("gpiochip*")
    link.symlink_to(chip)
    return chip.name

unplug()
found = [plug_in()]
one = power(6, chip=str(link))
one.on()
unplug()
found += [error(one.read), error(one.on), plug_in()]
one.on()
unplug()
found.append(plug_in())
one.off()
print([*found, one.read()])
""")
    gone = ("InfrastructureError", "there is no /tmp/relays")
    assert said == ["gpiochip0", gone, gone, "gpiochip1", "gpiochip2", False]
    assert lines.changes() == [(6, 1), (6, 0)]
