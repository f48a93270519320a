"""Which test runs on which target, and why one does not run."""

from __future__ import annotations

import pytest

BOARDS = """
[target.one]
backend = "qemu"
features = ["blue"]
[target.two]
backend = "qemu"
arch = "aarch64"
"""

# Takes the place of the fixture that would start a machine.
NO_MACHINES = """
import pytest

@pytest.fixture
def hil(request):
    return request.param.name
"""


@pytest.fixture
def boards(plain: pytest.Pytester) -> pytest.Pytester:
    """Two targets, and a `hil` that is the target's name."""
    plain.makefile(".toml", boards=BOARDS)
    plain.makeconftest(NO_MACHINES)
    return plain


def test_one_target_changes_no_id(boards: pytest.Pytester) -> None:
    boards.makepyfile(
        """
        import pytest
        def test_plain(): pass
        def test_it(hil): assert hil == "one"
        @pytest.mark.parametrize("n", [1, 2])
        def test_many(hil, n): pass
        """
    )
    done = boards.runpytest_inprocess("--hil-target=one", "-v")
    done.stdout.fnmatch_lines(
        ["*::test_plain PASSED*", "*::test_it PASSED*", "*::test_many?1? *", "*::test_many?2? *"]
    )
    done.assert_outcomes(passed=4)


@pytest.mark.parametrize("names", ["'hil'", "'n, hil'", "['hil', 'n']"])
def test_a_parametrisation_of_ones_own(boards: pytest.Pytester, names: str) -> None:
    boards.makepyfile(
        test_it=f"""
        import pytest
        @pytest.mark.parametrize({names}, [], indirect=True)
        def test_it(hil, n=0): pass
        """
    )
    done = boards.runpytest_inprocess("--hil-target=one")
    said = "test_it: @pytest.mark.parametrize(*hil*, …): hil comes from --hil-target*"
    done.stdout.fnmatch_lines([f"*test_it.py:2: {said}"])
    done.assert_outcomes(errors=1)


def test_what_setup_show_calls_a_target(boards: pytest.Pytester) -> None:
    boards.makepyfile("def test_it(hil): pass")
    done = boards.runpytest_inprocess("--hil-target=one", "--setup-show")
    done.stdout.fnmatch_lines(["*SETUP * hil?one?*"])


def test_several_targets_are_parameters(boards: pytest.Pytester) -> None:
    boards.makepyfile(
        """
        import pytest
        def test_it(hil): assert hil in ("one", "two")
        @pytest.mark.parametrize("n", [1])
        def test_many(hil, n): pass
        @pytest.mark.hil(target="two")
        def test_two(hil): pass
        """
    )
    done = boards.runpytest_inprocess(
        "--hil-target=one", "--hil-target=two", "--hil-target=one", "-v"
    )
    done.stdout.fnmatch_lines(
        [
            "*::test_it?one? PASSED*",
            "*::test_it?two? PASSED*",
            "*::test_many?one-1? PASSED*",
            "*::test_many?two-1? PASSED*",
            "*::test_two?two? PASSED*",
        ]
    )
    done.assert_outcomes(passed=5)


@pytest.mark.parametrize(
    ("marker", "reason"),
    [
        ("hil(features=['usb', 'green'])", "the target one lacks the feature green"),
        ("hil(features=['red', 'green'])", "the target one lacks the features green, red"),
        ("hil(target='two')", "only for the target two; chosen: one"),
        ("hil(target=['two', 'three'])", "only for the target two or three; chosen: one"),
        ("hardware", "needs a board; one is emulated"),
        ("hil(network='none', features=['network'])", "the target one lacks the feature network"),
    ],
)
def test_a_reason_not_to_run(boards: pytest.Pytester, marker: str, reason: str) -> None:
    boards.makepyfile(test_it=f"import pytest\n@pytest.mark.{marker}\ndef test_it(hil): pass")
    done = boards.runpytest_inprocess("--hil-target=one", "-rs")
    done.assert_outcomes(skipped=1)
    done.stdout.fnmatch_lines([f"SKIPPED * test_it.py:2: {reason}"])


@pytest.mark.parametrize(
    "marker",
    [
        "hil(features=['blue', 'usb', 'shell'])",
        "hil(features='blue')",
        "hil(target=['one', 'two'])",
        "hil(features=['tcg'])",
    ],
)
def test_no_reason_not_to_run(boards: pytest.Pytester, marker: str) -> None:
    boards.makepyfile(f"import pytest\n@pytest.mark.{marker}\ndef test_it(hil): pass")
    boards.runpytest_inprocess("--hil-target=one").assert_outcomes(passed=1)


def test_no_target(plain: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTEST_HIL_CACHE", str(plain.path / "cache"))
    plain.makepyfile(
        """
        import pytest
        def test_it(hil): pass
        def test_open(hil_open): pass
        def test_late(request): request.getfixturevalue("hil")
        @pytest.mark.hardware
        def test_board(): pass
        def test_plain(): pass
        """
    )
    done = plain.runpytest_inprocess("-rs")
    done.assert_outcomes(passed=1, skipped=4)
    done.stdout.fnmatch_lines(
        ["SKIPPED *: no target chosen: --hil-target=qemu runs it (--hil-list shows all targets)"]
    )
    assert not (plain.path / ".hil").exists()
    assert not (plain.path / "cache").exists()


def test_one_that_is_not_parametrised(boards: pytest.Pytester) -> None:
    boards.makepyfile(
        """
        import pytest, unittest

        @pytest.mark.hil(target="two")
        def test_late(request): request.getfixturevalue("real")

        @pytest.mark.hil(features=["green"])
        def test_lacks(request): request.getfixturevalue("real")

        @pytest.mark.usefixtures("real")
        @pytest.mark.hardware
        class TestUnit(unittest.TestCase):
            def test_unit(self): pass
        """
    )
    boards.makeconftest(
        """
import pytest
@pytest.fixture
def real(request): request.getfixturevalue("hil")
        """
    )
    done = boards.runpytest_inprocess("--hil-target=one", "-rs")
    done.assert_outcomes(skipped=3)
    for reason in (
        "only for the target two; chosen: one",
        "the target one lacks the feature green",
        "needs a board; one is emulated",
    ):
        done.stdout.fnmatch_lines([f"SKIPPED *: {reason}"])


def test_the_target_of_the_ini_file(boards: pytest.Pytester) -> None:
    boards.makeini("[pytest]\nhil_target = one two\n")
    boards.makepyfile("def test_it(hil): pass")
    boards.runpytest_inprocess().assert_outcomes(passed=2)
    boards.runpytest_inprocess("--hil-target=two").assert_outcomes(passed=1)


def test_another_boards_file(plain: pytest.Pytester) -> None:
    plain.mkdir("lab").joinpath("mine.toml").write_text(BOARDS)
    plain.makeconftest(NO_MACHINES)
    plain.makepyfile("def test_it(hil): pass")
    plain.runpytest_inprocess("--hil-boards=lab/mine.toml", "--hil-target=one").assert_outcomes(
        passed=1
    )
    plain.makeini("[pytest]\nhil_boards = lab/mine.toml\n")
    plain.runpytest_inprocess("--hil-target=two").assert_outcomes(passed=1)
