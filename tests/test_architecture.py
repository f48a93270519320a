"""The house keeps its shape: imports point downward, and each thing has its one place.

The layers are those of docs/explanation/architecture.md. Every import counts,
also one inside a function or under TYPE_CHECKING: a type that is needed from
above is a sign that something stands on the wrong floor.
"""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = "pytest_hil"

LAYERS = (
    ("errors",),
    ("config", "process", "agent", "cache", "progress"),
    ("console", "crash", "shell", "usbip", "kernel"),
    ("target", "crash_watch"),
    ("attach",),
    ("qemu", "artifacts", "board", "lab", "coverage", "deploy"),
    ("bench", "rig", "stations"),
    ("plugin", "cli"),
)

# Within a layer, who may use whom, and why. Everything else on one floor is a stranger.
SIDEWAYS = {
    ("cache", "progress"): "a build says what it does",
    ("cache", "process"): "a dead builder is known by its pid and start time",
    ("agent", "process"): "the compiler is a process",
    ("agent", "progress"): "a build says what it does",
    ("process", "progress"): "a long run says what it does",
    ("bench", "stations"): "the bench opens boards by it",
    ("target", "crash_watch"): "a target has its crashes found",
    ("shell", "console"): "a serial shell is spoken over a console",
}

# (importer, imported): why it may point upward all the same.
UPWARD: dict[tuple[str, str], str] = {}

HEAVY = frozenset(
    {
        "asyncio",
        "filelock",
        "google",
        "gpiod",
        "grpc",
        "pexpect",
        "pysnmp",
        "qemu",
        "rich",
        "serial",
        "usb",
        "xdist",
        "zstandard",
    }
)

# What starts, ends or waits for processes, besides what `subprocess` has for it.
PROCESS_MODULES = frozenset({"multiprocessing", "pty"})
PROCESS_WORDS = frozenset({"CompletedProcess", "DEVNULL", "PIPE", "STDOUT"})
PROCESS_CALLS = frozenset(
    {f"os.{name}" for name in ("fork", "forkpty", "kill", "killpg", "popen", "system")}
    | {f"os.{name}" for name in ("wait", "wait3", "wait4", "waitid", "waitpid")}
    | {name for name in (f"os.{each}" for each in dir(os)) if "exec" in name or "spawn" in name}
    | {"asyncio.create_subprocess_exec", "asyncio.create_subprocess_shell"}
    | {"pexpect.run", "pexpect.spawn", "signal.pidfd_send_signal"}
) - {"os.get_exec_path"}
PROCESS_EXCEPTIONS = {
    "process.py": "the one place",
    "agent/hatch_hook.py": "runs in the wheel's build, where the package is not there to import",
}

VAGUE = frozenset({"common", "helpers", "misc", "utils"})
MAX_LINES = 600


@dataclass(frozen=True)
class Import:
    """``importer`` and ``imported`` are full module names."""

    importer: str
    imported: str
    line: int

    def __str__(self) -> str:
        return f"{self.importer}:{self.line} imports {self.imported}"


def sources(package: Path) -> dict[str, Path]:
    """Every module of the package by its full name."""
    found = {}
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports_of(module: str, path: Path, modules: Iterable[str]) -> Iterator[Import]:
    """All that a module imports, wherever in it, relative and by import_module("…") too."""
    known = set(modules)
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text(), str(path))):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")
            above = above[: len(above) - node.level + 1] if node.level else []
            base = ".".join([*above, *filter(None, [node.module])])
            # `from package import name` is of a module where there is one, else of the package.
            inner = {alias.name: f"{base}.{alias.name}" for alias in node.names}
            names = sorted({full if full in known else base for full in inner.values()})
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            names = [str(a.value) for a in node.args[:1] if isinstance(a, ast.Constant)]
        for name in names:
            yield Import(module, name, getattr(node, "lineno", 0))


def part_of(module: str) -> str:
    """``pytest_hil.qemu.machine`` → ``qemu``; the package itself → ""."""
    return [*module.split("."), ""][1]


def layer_of(part: str) -> int | None:
    return next((number for number, parts in enumerate(LAYERS) if part in parts), None)


def wrong_direction(found: Import) -> str:
    """Why an import within the package is not allowed; "" if it is."""
    importer, imported = part_of(found.importer), part_of(found.imported)
    if (found.importer, found.imported) in UPWARD or importer == imported:
        return ""
    if not imported:
        return f"{found}: the package's face is for test authors; import the module itself"
    above, below = layer_of(importer), layer_of(imported)
    if below is None:
        return f"{found}: {imported} is in no layer"
    if not importer:
        # The face names types from anywhere below the top.
        return f"{found}: not for test authors" if imported in LAYERS[-1] else ""
    if above is None:
        return f"{found}: {importer} is in no layer"
    if above == below and (importer, imported) not in SIDEWAYS:
        return f"{found}: both are in layer {above}"
    return f"{found}: layer {above} imports layer {below}" if above < below else ""


def faults(package: Path) -> list[str]:
    """Everything in a package's tree that breaks a rule of this file."""
    modules = sources(package)
    found = []
    for module, path in modules.items():
        part = part_of(module)
        for each in imports_of(module, path, modules):
            top = each.imported.partition(".")[0]
            if top == PACKAGE:
                found.append(wrong_direction(each))
            elif top in {"pytest", "_pytest", "pluggy", "xdist"} and part != "plugin":
                found.append(f"{each}: only plugin/ knows of pytest")
            elif top in PROCESS_MODULES:
                found.append(not_its_job(path, package, str(each)))
        for name, line in calls_of(path):
            if name in PROCESS_CALLS or starts_by_subprocess(name):
                found.append(not_its_job(path, package, f"{module}:{line} uses {name}"))
    for path in sorted(package.rglob("*")):
        if path.suffix in {".c", ".h", ".py"}:
            found.append(shape(path))
    return [fault for fault in found if fault]


def starts_by_subprocess(name: str) -> bool:
    """``subprocess.run``, say; its constants are what process.py takes."""
    module, _, attribute = name.partition(".")
    return module == "subprocess" and attribute not in PROCESS_WORDS


def not_its_job(path: Path, package: Path, what: str) -> str:
    if path.relative_to(package).as_posix() in PROCESS_EXCEPTIONS:
        return ""
    return f"{what}: processes are process.py's"


def calls_of(path: Path) -> Iterator[tuple[str, int]]:
    """Every ``module.name`` that a file mentions, called or not; ``from os import kill`` too."""
    for node in ast.walk(ast.parse(path.read_text(), str(path))):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            yield f"{node.value.id}.{node.attr}", node.lineno
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from ((f"{node.module}.{alias.name}", node.lineno) for alias in node.names)


def shape(path: Path) -> str:
    if path.stem in VAGUE:
        return f"{path}: the name says nothing of what is in it"
    lines = len(path.read_text().splitlines())
    return f"{path}: {lines} lines; past {MAX_LINES} a file asks to be two" * (lines > MAX_LINES)


def test_the_package_keeps_every_rule() -> None:
    assert faults(ROOT / PACKAGE) == []


def test_no_test_or_script_is_shapeless() -> None:
    paths = [*(ROOT / "tests").rglob("*.py"), *(ROOT / "scripts").rglob("*.py")]
    assert [fault for fault in map(shape, paths) if fault] == []


def test_layers_name_only_what_exists_or_is_designed() -> None:
    parts = {part_of(module) for module in sources(ROOT / PACKAGE)} - {""}
    assert {part for part in parts if layer_of(part) is None} == set()


@pytest.mark.parametrize(
    ("files", "fault"),
    [
        ({"errors.py": "import pytest_hil.config"}, "layer 0 imports layer 1"),
        ({"config.py": "from pytest_hil import qemu", "qemu/__init__.py": ""}, "layer 1 imports"),
        ({"config.py": "def f():\n    from pytest_hil.qemu import x"}, "config:2 imports"),
        ({"target.py": "if TYPE_CHECKING:\n    from pytest_hil.qemu import x"}, "layer 3 imports"),
        ({"qemu/a.py": "from ..artifacts import store"}, "both are in layer 5"),
        ({"qemu/a.py": "from ... import x"}, ""),
        ({"console/a.py": "from pytest_hil.shell import x"}, "both are in layer 2"),
        ({"console/a.py": "from pytest_hil.usbip import x"}, "both are in layer 2"),
        ({"usbip/a.py": "from pytest_hil.console import x"}, "both are in layer 2"),
        ({"shell/a.py": "from pytest_hil.console import x"}, ""),
        ({"plugin/a.py": "import pytest_hil.cli.main"}, "both are in layer 7"),
        ({"qemu/a.py": "import_module('pytest_hil.bench')"}, "layer 5 imports layer 6"),
        ({"qemu/a.py": "from pytest_hil import Target"}, "face is for test authors"),
        ({"qemu/a.py": "from pytest_hil import errors", "errors.py": ""}, ""),
        ({"qemu/a.py": "from .monitor import x\nfrom . import y", "qemu/monitor.py": ""}, ""),
        ({"qemu/a.py": "import pytest_hil.things"}, "things is in no layer"),
        ({"__init__.py": "import pytest_hil.plugin"}, "not for test authors"),
        ({"__init__.py": "from pytest_hil.target import Target"}, ""),
        ({"cli/a.py": "import pytest"}, "only plugin/ knows of pytest"),
        (
            {"bench.py": "def f():\n    from _pytest.config import x"},
            "only plugin/ knows of pytest",
        ),
        ({"plugin/a.py": "import pytest"}, ""),
        ({"qemu/a.py": "import pty"}, "processes are process.py's"),
        ({"qemu/a.py": "import subprocess\nsubprocess.run"}, "a:2 uses subprocess.run"),
        ({"qemu/a.py": "from subprocess import Popen"}, "uses subprocess.Popen"),
        ({"qemu/a.py": "import subprocess\nsubprocess.PIPE"}, ""),
        ({"qemu/a.py": "import os\nos.kill(1, 9)"}, "a:2 uses os.kill"),
        ({"qemu/a.py": "from os import fork"}, "uses os.fork"),
        ({"qemu/a.py": "import os\nos.posix_spawn"}, "uses os.posix_spawn"),
        ({"process.py": "import subprocess\nsubprocess.run"}, ""),
        ({"qemu/utils.py": ""}, "the name says nothing"),
        ({"qemu/a.py": "\n" * 601}, "601 lines"),
        ({"qemu/a.py": "\n" * 600}, ""),
    ],
)
def test_the_rules_are_seen_to_be_broken(
    tmp_path: Path, files: Mapping[str, str], fault: str
) -> None:
    for name, text in files.items():
        path = tmp_path / PACKAGE / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    found = faults(tmp_path / PACKAGE)
    assert len(found) == bool(fault), found
    assert fault in "".join(found)


LOADED = f"""
import os, sys, pytest

class Watch:
    def pytest_sessionfinish(self):
        heavy = {sorted(HEAVY)!r}
        print("\\nloaded:", *[name for name in heavy if name in sys.modules])
        print("plugin:", "{PACKAGE}.plugin" in sys.modules)

sys.exit(pytest.main(sys.argv[1:], plugins=[Watch()]))
"""


def test_the_plugin_loads_nothing_heavy(tmp_path: Path) -> None:
    """A run with no hil test pays for no library that it does not need."""
    (tmp_path / "test_plain.py").write_text("def test_plain(): pass\n")
    env = os.environ | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTHONPATH": str(ROOT)}
    env.pop("PYTEST_ADDOPTS", None)

    def run(*options: str) -> list[str]:
        argv = [sys.executable, "-c", LOADED, "-q", "-s", *options, "--rootdir=.", "test_plain.py"]
        done = subprocess.run(
            argv, cwd=tmp_path, env=env, capture_output=True, text=True, check=False, timeout=60
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return [line for line in done.stdout.splitlines() if line.startswith(("loaded", "plugin"))]

    bare = run()
    assert bare[1] == "plugin: False"
    assert run("-p", f"{PACKAGE}.plugin") == [bare[0], "plugin: True"]
