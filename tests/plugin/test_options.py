"""Options and ini values: what is wrong is said, with its place."""

from __future__ import annotations

import pytest


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("--hil-boards=nowhere.toml", "nowhere.toml: there is no such file"),
        ("--hil-boards=.", ".: not a file"),
        ("--hil-kernel=nowhere", "nowhere: there is no such file"),
        ("--hil-kernel-modules=nowhere", "nowhere: there is no such directory"),
        ("--hil-boot-timeout=soon", "'soon' is no time: write seconds"),
        ("--hil-boot-timeout=-1", "'-1' is no time"),
        ("--hil-boot-timeout=nan", "'nan' is no time"),
        ("--hil-artifacts=test_it.py", "test_it.py: not a directory"),
        ("--hil-scope=class", "invalid choice: 'class'"),
        ("--hil-keep=some", "invalid choice: 'some'"),
        ("--hil-accel=fast", "invalid choice: 'fast'"),
    ],
)
def test_a_wrong_option(plain: pytest.Pytester, option: str, said: str) -> None:
    plain.makepyfile(test_it="def test_it(): pass")
    done = plain.runpytest_inprocess(option)
    assert done.ret == pytest.ExitCode.USAGE_ERROR
    done.stderr.fnmatch_lines([f"*argument {option.partition('=')[0]}: *{said}*"])


def test_modules_without_their_kernel(plain: pytest.Pytester) -> None:
    done = plain.runpytest_inprocess("--hil-kernel-modules=.")
    assert done.ret == pytest.ExitCode.USAGE_ERROR
    done.stderr.fnmatch_lines(["ERROR: --hil-kernel-modules: for which kernel? *"])


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("hil_scope = class", "hil_scope: 'class' is not one of function, module, session"),
        ("hil_accel = fast", "hil_accel: 'fast' is not one of auto, kvm, tcg"),
        ("hil_boot_timeout = soon", "hil_boot_timeout: 'soon' is no time"),
        ("hil_memory_budget = lots", "hil_memory_budget: 'lots' is not a size"),
        ("hil_artifacts_keep = 0", "hil_artifacts_keep: '0' is no whole number from 1 up"),
    ],
)
def test_a_wrong_ini_value(plain: pytest.Pytester, line: str, said: str) -> None:
    plain.makeini(f"[pytest]\n{line}\n")
    plain.makepyfile("def test_it(hil): pass")
    done = plain.runpytest_inprocess("--hil-target=qemu")
    assert done.ret == pytest.ExitCode.USAGE_ERROR
    done.stderr.fnmatch_lines([f"ERROR: *tox.ini: {said}*"])


def test_a_wrong_memory_budget_in_the_environment(
    plain: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTEST_HIL_MEMORY_BUDGET", "8 apples")
    plain.makepyfile("def test_it(hil): pass")
    done = plain.runpytest_inprocess("--hil-target=qemu")
    assert done.ret == pytest.ExitCode.USAGE_ERROR
    done.stderr.fnmatch_lines(["ERROR: PYTEST_HIL_MEMORY_BUDGET: '8 apples' is not a size*"])


def test_the_options_stand_together_in_the_help(plain: pytest.Pytester) -> None:
    done = plain.runpytest_inprocess("--help")
    lines = done.outlines
    start = lines.index("machines to test on (pytest-hil):")
    group = lines[start + 1 : lines.index("", start)]
    options = {line.split()[0].partition("=")[0] for line in group if line.startswith("  --")}
    assert options == {
        f"--hil-{name}"
        for name in (
            *("accel", "artifacts", "boards", "boot-timeout", "keep", "kernel"),
            *("cov", "cov-fail-under", "cov-gcov", "cov-report"),
            *(
                "kernel-modules",
                "list",
                "no-templates",
                "report",
                "scope",
                "strict",
                "target",
                "usb-log",
                "wait",
            ),
        )
    }


def test_pytest_without_its_own_parts(plain: pytest.Pytester) -> None:
    plain.makepyfile("def test_it(hil): pass\ndef test_plain(): pass\n")
    for part in ("terminal", "capture", "logging", "warnings", "junitxml", "skipping"):
        done = plain.runpytest_subprocess("-p", f"no:{part}")
        assert done.ret == pytest.ExitCode.OK, (part, done.stdout.str(), done.stderr.str())


def test_the_markers_are_registered(plain: pytest.Pytester) -> None:
    done = plain.runpytest_inprocess("--markers")
    done.stdout.fnmatch_lines(["@pytest.mark.hil(*", "@pytest.mark.hardware: *"])


def test_the_fixtures_are_documented(plain: pytest.Pytester) -> None:
    done = plain.runpytest_inprocess("--fixtures")
    done.stdout.fnmatch_lines(["hil -- *", "    *factory-fresh*", "hil_open -- *"])
