"""What a run and a target are, in a few words each, for those who read about them later."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import pytest

from pytest_hil.plugin.bench import bench_of
from pytest_hil.plugin.items import Use

_MiB = 2**20

# What a command that runs a test again gets of its own, or does not need.
_NOT_AGAIN = frozenset({"hil_target", "hil_artifacts", "hil_keep", "hil_list", "hil_report"})


def run_facts(config: pytest.Config) -> dict[str, Any]:
    """For run.json: where pytest ran, with which of our options, on what."""
    versions = {
        "Python": platform.python_version(),
        "pytest": pytest.__version__,
        "pytest-hil": _version("pytest-hil"),
        "host": f"{platform.system()} {platform.release()}, {platform.machine()}",
    }
    return {"root": str(config.rootpath), "options": options_again(config), "versions": versions}


def options_again(config: pytest.Config) -> list[str]:
    """Our options as the command line had them; those of the ini file come by themselves."""
    given = [str(word).partition("=")[0] for word in config.invocation_params.args]
    found = []
    for name, value in sorted(vars(config.option).items()):
        option = "--" + name.replace("_", "-")
        if not name.startswith("hil_") or name in _NOT_AGAIN or option not in given:
            continue
        for each in value if isinstance(value, list) else [value]:
            found.append(option if each is True else f"{option}={each}")
    return found


def target_facts(config: pytest.Config, use: Use) -> dict[str, str]:
    """What a target is made of."""

    from pytest_hil.config import QemuTarget

    target = use.wanted.target
    if not isinstance(target, QemuTarget):
        return {"board": use.target.name, "arch": use.target.arch}
    facts = {
        "arch": target.arch,
        "memory": f"{target.memory // _MiB} MB",
        "CPUs": str(target.smp),
        "accelerator": bench_of(config).accel(target).name,
    }
    if target.disk is None and target.initrd is None:
        facts["image"] = target.image
    for name in ("kernel", "initrd", "disk"):
        path = getattr(target, name)
        if path is not None:
            facts[name] = path.name
    if target.network != "isolated":
        facts["network"] = target.network
    return facts


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"
