"""The marker's mistakes are said when tests are collected, with the test and its place."""

from __future__ import annotations

import pytest

from pytest_hil.config.tables import TARGET_KEYS
from pytest_hil.plugin.marker import KEYS


@pytest.mark.parametrize(
    ("marker", "said"),
    [
        (
            "hil(memroy='1G')",
            "@pytest.mark.hil(memroy=…): there is no such key; did you*",
        ),
        ("hil('usb')", "@pytest.mark.hil takes keywords only: @pytest.mark.hil(features=?'usb'?)"),
        (
            "hil(features=[1])",
            "@pytest.mark.hil: features=*1*: a name or a list of *",
        ),
        ("hil(target=3)", "@pytest.mark.hil: 'int' object is not iterable"),
        ("hardware('rpi4')", "@pytest.mark.hardware takes no arguments"),
    ],
)
def test_a_wrong_marker(plain: pytest.Pytester, marker: str, said: str) -> None:
    plain.makepyfile(test_it=f"import pytest\n\n\n@pytest.mark.{marker}\ndef test_it(hil): pass")
    done = plain.runpytest_inprocess()
    assert done.ret == pytest.ExitCode.INTERRUPTED
    done.stdout.fnmatch_lines([f"test_it.py:4: test_it: {said}*"])


@pytest.mark.parametrize(
    ("marker", "said"),
    [
        ("hil(memory='lots')", "*memory: 'lots' is not a size*"),
        ("hil(smp=0)", "*smp: 0 is no number of CPUs*"),
        ("hil(image='debain')", "*image: there is no image 'debain'*"),
        ("hil(network='none', forwards=[22])", "*forwards: there is no network to forward to*"),
    ],
)
def test_a_wrong_value(plain: pytest.Pytester, marker: str, said: str) -> None:
    plain.makepyfile(test_it=f"import pytest\n@pytest.mark.{marker}\ndef test_it(hil): pass")
    done = plain.runpytest_inprocess("--hil-target=qemu")
    assert done.ret == pytest.ExitCode.INTERRUPTED
    done.stdout.fnmatch_lines([f"test_it.py:2: test_it: {said}"])


def test_markers_of_class_and_module_add_up(plain: pytest.Pytester) -> None:
    plain.makepyfile(
        """
        import pytest

        pytestmark = pytest.mark.hil(features=["a"], memory="300M", smp=3)

        @pytest.mark.hil(features=["b"], memory="400M")
        class TestIt:
            @pytest.mark.hil(features=["c"], memory="500M")
            def test_it(self, hil): pass

        @pytest.fixture(autouse=True)
        def show(request):
            wanted = request.node.callspec.params["hil"]
            print(*sorted(wanted.features), wanted.target.memory // 2**20, wanted.target.smp)
        """
    )
    plain.makefile(".toml", boards='[target.q]\nbackend="qemu"\nfeatures=["a", "b", "c"]')
    plain.makeconftest("import pytest\n@pytest.fixture\ndef hil(request): return request.param\n")
    done = plain.runpytest_inprocess("--hil-target=q", "-s")
    done.stdout.fnmatch_lines(["*a b c 500 3"])
    done.assert_outcomes(passed=1)


def test_every_key_but_the_selection_is_one_of_a_target() -> None:
    selection = {"features", "target", "kernel_config", "crash_ignore"}
    assert set(KEYS) - selection <= set(TARGET_KEYS)
