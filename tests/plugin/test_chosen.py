"""What is wrong with the chosen targets is said before the first test, once."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

TESTS = "import pytest\n@pytest.mark.parametrize('n', range(20))\ndef test_it(hil, n): pass\n"
UNKNOWN = "ERROR: no boards.toml: there is no target 'qumu'"


def said_once(done: pytest.RunResult, line: str) -> None:
    assert done.ret == pytest.ExitCode.USAGE_ERROR
    text = done.stdout.str() + done.stderr.str()
    assert text.count(line) == 1, text
    assert "INTERNALERROR" not in text
    assert "Traceback" not in text


def test_an_unknown_target(plain: pytest.Pytester) -> None:
    plain.makepyfile(TESTS)
    done = plain.runpytest_inprocess("--hil-target=qumu")
    said_once(done, UNKNOWN)
    done.stderr.fnmatch_lines(["*did you mean 'qemu'?*"])


@pytest.mark.parametrize("how", [("--hil-target=qumu",), ("-o", "hil_target=qumu")])
def test_an_unknown_target_with_xdist(plain: pytest.Pytester, how: tuple[str, ...]) -> None:
    plain.makepyfile(TESTS)
    said_once(plain.runpytest_subprocess("-n2", *how), UNKNOWN)


def test_an_unknown_target_of_the_ini_file_matters_to_who_uses_it(plain: pytest.Pytester) -> None:
    plain.makeini("[pytest]\nhil_target = qumu\n")
    plain.makepyfile(test_hil=TESTS, test_plain="def test_it(): pass")
    said_once(plain.runpytest_inprocess(), UNKNOWN)
    plain.runpytest_inprocess("test_plain.py").assert_outcomes(passed=1)
    plain.runpytest_inprocess("-k", "test_plain").assert_outcomes(passed=1, deselected=20)
    plain.runpytest_subprocess("-n1", "test_plain.py").assert_outcomes(passed=1)


def test_an_unusable_boards_file(plain: pytest.Pytester) -> None:
    plain.makefile(".toml", boards='[target.one]\nbackend = "qemu"\nmemroy = "1G"\n')
    plain.makepyfile(TESTS)
    done = plain.runpytest_inprocess("--hil-target=one")
    said_once(done, "boards.toml: [target.one] memroy: unknown key")
    done.stderr.fnmatch_lines(["*did you mean 'memory'?*"])


@pytest.mark.parametrize("more", [(), ("-n2",)], ids=["alone", "xdist"])
def test_no_qemu(
    plain: pytest.Pytester,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    more: tuple[str, ...],
) -> None:
    setpriv = shutil.which("setpriv")
    assert setpriv is not None
    (tmp_path / "setpriv").symlink_to(setpriv)
    monkeypatch.setenv("PATH", str(tmp_path))
    plain.makepyfile(TESTS)
    done = plain.runpytest_subprocess("--hil-target=qemu", *more)
    said_once(done, "ERROR: qemu-system-x86_64 is not on PATH")
    done.stderr.fnmatch_lines(["*install it: apt-get install qemu-system-x86*"])


def test_no_qemu_matters_to_nobody_who_only_collects(
    plain: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    plain.makepyfile(TESTS)
    done = plain.runpytest_inprocess("--hil-target=qemu", "--collect-only", "-q")
    assert done.ret == pytest.ExitCode.OK


def test_a_cache_that_cannot_be_written(
    plain: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A file where a directory is wanted stops root, too.
    monkeypatch.setenv("PYTEST_HIL_CACHE", str(plain.makefile("", cache="")))
    plain.makepyfile(TESTS)
    done = plain.runpytest_inprocess("--hil-target=qemu")
    said_once(done, "cannot be written")
    done.stderr.fnmatch_lines(["*PYTEST_HIL_CACHE=DIR*"])
