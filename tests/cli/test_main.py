"""The frame of ``pytest-hil``: verbs are found, errors are said, exit codes are right."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from pytest_hil.cli.main import VERBS, Verb, main

VERB = """
import argparse
from pytest_hil.errors import ConfigError, MachineError

def add_parser(subparsers):
    parser = subparsers.add_parser("try", help="the real help line")
    parser.add_argument("what")
    return parser

def run(args):
    if args.what == "config":
        raise ConfigError("boards.toml: [target.a] smp", "is wrong", mend="write 1")
    if args.what == "machine":
        raise MachineError("it broke")
    if args.what == "interrupt":
        raise KeyboardInterrupt
    print(f"tried {args.what}")
    return 3 if args.what == "three" else 0
"""


@pytest.fixture
def verbs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Verb]:
    (tmp_path / "hil_verb_for_tests.py").write_text(VERB)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "hil_verb_for_tests", raising=False)
    return {
        "try": Verb("hil_verb_for_tests", "tries"),
        "broken": Verb("no_such_module", "cannot be imported"),
    }


def test_a_verb_runs_and_no_other_is_imported(
    verbs: dict[str, Verb], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["try", "this"], verbs=verbs) == 0
    assert main(["try", "three"], verbs=verbs) == 3
    assert capsys.readouterr().out == "tried this\ntried three\n"


@pytest.mark.parametrize(
    ("what", "code", "message"),
    [
        ("config", 2, "pytest-hil: boards.toml: [target.a] smp: is wrong\n  write 1\n"),
        ("machine", 1, "pytest-hil: it broke\n"),
        ("interrupt", 130, "interrupted\n"),
    ],
)
def test_errors_are_messages_and_exit_codes(
    verbs: dict[str, Verb],
    capsys: pytest.CaptureFixture[str],
    what: str,
    code: int,
    message: str,
) -> None:
    assert main(["try", what], verbs=verbs) == code
    assert capsys.readouterr() == ("", message)


@pytest.mark.parametrize("arguments", [[], ["tyr"], ["try"], ["--nonsense"]])
def test_wrong_use_is_exit_code_2(verbs: dict[str, Verb], arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(arguments, verbs=verbs)
    assert stopped.value.code == 2


def test_help_lists_the_verbs_without_importing_them(
    verbs: dict[str, Verb], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["--help"], verbs=verbs)
    assert stopped.value.code == 0
    assert "cannot be imported" in capsys.readouterr().out
    assert "hil_verb_for_tests" not in sys.modules


def test_a_reader_that_goes_away_is_no_traceback(tmp_path: Path) -> None:
    (tmp_path / "flood.py").write_text(
        "def add_parser(s): return s.add_parser('flood')\n"
        "def run(args):\n"
        "    for n in range(10**6): print(n)\n"
        "    return 0\n"
    )
    script = (
        "import sys; from pytest_hil.cli.main import Verb, main; "
        "sys.exit(main(['flood'], verbs={'flood': Verb('flood', '')}))"
    )
    path = [str(tmp_path), str(Path(__file__).parents[2])]
    with subprocess.Popen(
        [sys.executable, "-c", f"import sys; sys.path[:0] = {path!r}; {script}"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as child:
        assert child.stdout is not None
        assert child.stderr is not None
        child.stdout.readline()
        child.stdout.close()
        assert child.stderr.read() == b""
    assert child.returncode == 141


@pytest.mark.parametrize(
    ("redirection", "code", "said"),
    [
        (">/dev/full", 1, "pytest-hil: [Errno 28] No space left on device\n"),
        (">&-", 0, ""),
        ("<&-", 0, ""),
        ("<&- >&- 2>&-", 0, ""),
    ],
)
def test_no_traceback_wherever_the_output_goes(
    tmp_path: Path, redirection: str, code: int, said: str
) -> None:
    command = f"{sys.executable} -m pytest_hil.cli.main vm list --json {redirection}"
    environ = {**os.environ, "TMPDIR": str(tmp_path)}
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, env=environ)
    assert (done.returncode, done.stderr) == (code, said)


def test_a_terminal_without_an_ellipsis() -> None:
    environ = {**os.environ, "PYTHONIOENCODING": "ascii"}
    argv = [sys.executable, "-m", "pytest_hil.cli.main", "vm", "start", "--help"]
    done = subprocess.run(argv, capture_output=True, text=True, env=environ)
    assert (done.returncode, done.stderr) == (0, "")
    assert "TARGET-1, TARGET-2, ?" in done.stdout


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("pytest-hil ")


@pytest.mark.parametrize("name", sorted(VERBS))
def test_every_verb_has_its_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert callable(import_module(VERBS[name].module).run)
    with pytest.raises(SystemExit) as stopped:
        main([name, "--help"])
    assert stopped.value.code == 0
    assert f"usage: pytest-hil {name}" in capsys.readouterr().out
