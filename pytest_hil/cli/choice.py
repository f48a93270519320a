"""The options that say which target to open, and how: shared by ``vm start`` and ``console``."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_hil.config import BUILTIN_TARGET, values
from pytest_hil.config.values import BadValue
from pytest_hil.errors import ConfigError

if TYPE_CHECKING:
    from pytest_hil.bench import Bench, Settings
    from pytest_hil.config import QemuTarget

DEFAULT_TARGET = BUILTIN_TARGET
_MEMORY_BUDGET = "PYTEST_HIL_MEMORY_BUDGET"
_PATHS = ("kernel", "kernel_modules")
_SETTING_PATHS = ("root", "boards", "cache", *_PATHS)
_OVERRIDES = ("memory", "smp", "image", "append", "network", "forwards", *_PATHS)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """``--boards``, ``--accel`` and what they may change about the target."""
    add_settings(parser)
    changes = parser.add_argument_group("other than boards.toml says")
    changes.add_argument("--memory", metavar="SIZE", help="such as 512M or 2G")
    changes.add_argument("--smp", metavar="N", type=int, help="number of processors")
    changes.add_argument("--image", metavar="NAME", help="an [image.NAME] of boards.toml")
    changes.add_argument("--kernel", metavar="FILE", type=Path, help="another kernel")
    changes.add_argument("--kernel-modules", metavar="DIR", type=Path, help="and its modules")
    changes.add_argument("--append", metavar="TEXT", help="more on the kernel's command line")
    changes.add_argument(
        "--network",
        choices=values.NETWORKS,
        help="isolated: it reaches nothing; open: what the host does; none: no card",
    )
    changes.add_argument(
        "--forward",
        metavar="PORT",
        dest="forwards",
        action="append",
        help="make this port of the guest one of 127.0.0.1; repeatable",
    )


def add_settings(parser: argparse.ArgumentParser) -> None:
    """Where boards.toml is, and how machines run."""
    parser.add_argument("--boards", metavar="FILE", type=Path, help="default: boards.toml here")
    parser.add_argument(
        "--accel",
        choices=("auto", "kvm", "tcg"),
        default="auto",
        help="by KVM, by emulation (tcg), or by KVM where it works (auto, the default)",
    )
    parser.add_argument(
        "--boot-timeout",
        metavar="SECONDS",
        type=seconds,
        default=60.0,
        help="how long it may take until it is ready (default: 60)",
    )


def seconds(text: str) -> float:
    """``type=`` of an option that is a time: a positive number of seconds."""
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < 1e9:
        raise argparse.ArgumentTypeError(f"{text!r} is no time: write seconds, such as 60 or 2.5")
    return number


def settings(args: argparse.Namespace) -> dict[str, Any]:
    """The arguments of :class:`pytest_hil.bench.Settings`, as plain values."""
    return {
        "root": str(Path.cwd()),
        "boards": None if args.boards is None else str(args.boards.absolute()),
        "accel": args.accel,
        "boot_timeout": args.boot_timeout,
        "memory_budget": memory_budget(),
    }


def made(plain: Mapping[str, Any]) -> Settings:
    """The settings themselves, from plain values."""
    from pytest_hil.bench import Settings

    paths = {key: Path(plain[key]) for key in _SETTING_PATHS if plain.get(key) is not None}
    return Settings(**{**plain, **paths})


def overrides(args: argparse.Namespace) -> dict[str, Any]:
    """What is asked for about the target, as plain values; paths are meant from here."""
    given = {name: getattr(args, name) for name in _OVERRIDES}
    given |= {name: str(given[name].absolute()) for name in _PATHS if given[name]}
    return {name: value for name, value in given.items() if value is not None}


def target_of(bench: Bench, name: str, overrides: Mapping[str, Any]) -> QemuTarget:
    """A target with what was asked for about it. Raises ConfigError."""
    return bench.target(name, where="the command line", **overrides)


def memory_budget() -> int | None:
    """What the environment allows all machines together, in bytes. Raises ConfigError."""
    text = os.environ.get(_MEMORY_BUDGET, "")
    try:
        return values.size(text) if text else None
    except BadValue as bad:
        raise ConfigError(_MEMORY_BUDGET, bad.message, mend=bad.mend) from None
