"""What broke on our side is an error, whichever phase it broke in; the rest is a failure."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

TESTS = """
import pytest
from pytest_hil.errors import *

def test_passes(): pass

def test_fails():
    assert 1 == 2

def test_command_fails():
    raise CommandFailed("false", exit_code=1)

def test_channel():
    raise ChannelLost("the way is gone", mend="find it again")

@pytest.fixture
def broken():
    raise MachineError("no machine today")  # here it was

def test_set_up(broken): pass

@pytest.fixture
def breaks_later():
    yield
    raise NoRoom("no room to leave")

def test_tear_down(breaks_later): pass
"""


def test_a_wrong_wish_is_said_without_our_own_lines(plain: pytest.Pytester) -> None:
    plain.makepyfile(
        """
        import pytest
        @pytest.fixture
        def bigger(request):
            return request.getfixturevalue("hil_open")(memory="lots")
        def test_of_a_fixture(bigger): pass
        def test_of_the_test(hil_open): hil_open(memory="lots")
        class TestDynamic:
            pytestmark = pytest.mark.hil(memory="lots")
            @pytest.fixture
            def late(self, request): return request.getfixturevalue("hil")
            def test_it(self, late): pass
        """
    )
    done = plain.runpytest_subprocess("--hil-target=qemu")
    done.assert_outcomes(failed=1, errors=2)
    done.stdout.fnmatch_lines(["E *hil_open(): memory: 'lots' is not a size"])
    done.stdout.no_fnmatch_line("*raise_if_any*")


@pytest.mark.parametrize("more", [(), ("-n1",)], ids=["alone", "xdist"])
def test_errors_and_failures(plain: pytest.Pytester, more: tuple[str, ...]) -> None:
    plain.makepyfile(test_it=TESTS)
    done = plain.runpytest_subprocess("--junitxml=result.xml", *more)
    done.assert_outcomes(passed=2, failed=2, errors=3)
    assert done.ret == pytest.ExitCode.TESTS_FAILED
    done.stdout.fnmatch_lines(
        [
            "*_ ERROR at call of test_channel _*",
            "infrastructure: the way is gone",
            "  find it again",
            "The test was here:",
            "    def test_channel():",
            ">       raise ChannelLost(*",
            "test_it.py:13: ChannelLost",
        ]
    )
    done.stdout.fnmatch_lines(["infrastructure: no machine today", "* # here it was"])
    for line in (
        "FAILED test_it.py::test_fails - assert 1 == 2",
        "FAILED test_it.py::test_command_fails - *CommandFailed: *",
        "ERROR test_it.py::test_channel - infrastructure: the way is gone",
        "ERROR test_it.py::test_set_up - infrastructure: no machine today",
        "ERROR test_it.py::test_tear_down - infrastructure: no room to leave",
    ):
        done.stdout.fnmatch_lines([line])
    assert outcomes((plain.path / "result.xml").read_text()) == {
        "test_passes": [],
        "test_fails": ["failure"],
        "test_command_fails": ["failure"],
        "test_channel": ["error"],
        "test_set_up": ["error"],
        "test_tear_down": ["error"],
    }


def outcomes(xml: str) -> dict[str, list[str]]:
    cases = ElementTree.fromstring(xml).iter("testcase")
    found: dict[str, list[str]] = {}
    for case in cases:
        found.setdefault(case.attrib["name"], []).extend(child.tag for child in case)
    return found


def test_what_is_expected_to_fail_does_not_hide_an_error(plain: pytest.Pytester) -> None:
    plain.makepyfile(
        """
        import pytest
        from pytest_hil.errors import *

        @pytest.mark.xfail
        def test_bug():
            assert False

        @pytest.mark.xfail
        def test_broken():
            raise ChannelLost("gone")

        @pytest.mark.xfail(raises=ChannelLost)
        def test_that_is_what_it_tests():
            raise ChannelLost("gone")
        """
    )
    plain.runpytest_inprocess().assert_outcomes(xfailed=2, errors=1)


OURS = """
import pytest
from pytest_hil.config import load
from pathlib import Path

def test_it():
    load(Path("nowhere.toml"), root=Path())
"""


def test_our_own_lines_are_left_out(plain: pytest.Pytester) -> None:
    plain.makepyfile(test_it=OURS)
    done = plain.runpytest_inprocess()
    done.stdout.fnmatch_lines(
        [">   *load(Path(*", "E  *ConfigError: *", "test_it.py:6: ConfigError"]
    )
    assert "load.py" not in done.stdout.str()
    assert "load.py" in plain.runpytest_inprocess("--full-trace").stdout.str()


def test_wherever_it_is_raised(plain: pytest.Pytester) -> None:
    """Of a TestCase pytest knows it late; tasks put it into groups; subtests report for themselves.

    A failure beside it is a failure.
    """
    plain.makepyfile(
        test_it="""
        import unittest
        from pytest_hil.errors import ChannelLost

        def gone(): raise ChannelLost("the way is gone")

        class TestIt(unittest.TestCase):
            def test_case(self): gone()
            def test_case_that_fails(self): self.fail()

        def test_group():
            inner = ExceptionGroup("tasks", [ChannelLost("the way is gone")])
            raise ExceptionGroup("more tasks", [inner, ChannelLost("this one too")])

        def test_group_with_a_failure():
            raise ExceptionGroup("tasks", [ChannelLost("the way is gone"), AssertionError("so")])

        def test_sub(subtests):
            with subtests.test(number=0): gone()
            with subtests.test(number=1): pass

        def test_sub_with_a_failure(subtests):
            with subtests.test(number=0): gone()
            with subtests.test(number=1): assert False
        """
    )
    done = plain.runpytest_subprocess("-rA")
    for name in ("TestIt::test_case", "test_group", "test_sub"):
        done.stdout.fnmatch_lines(
            [f"ERROR test_it.py::{name} - infrastructure: the way is gone"], consecutive=False
        )
    for name in (
        "TestIt::test_case_that_fails",
        "test_group_with_a_failure",
        "test_sub_with_a_failure",
    ):
        done.stdout.fnmatch_lines([f"FAILED test_it.py::{name}*"])
