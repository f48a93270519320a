"""Puts the agent's binaries into a wheel: all of them, or only the host's in an editable install.

hatchling loads this file by its path, before the package is installed.
"""

from __future__ import annotations

import importlib
import platform
import sys
import types
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

_QEMU_NAMES = {"armv7l": "arm", "armv8l": "arm"}


class AgentBuildHook(BuildHookInterface):  # type: ignore[type-arg]
    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:  # noqa: ARG002
        if self.target_name != "wheel":
            return
        build = _build_module(Path(self.root))
        host = platform.machine()
        host = _QEMU_NAMES.get(host, host)
        everything = version != "editable"
        for arch in build.TARGETS:
            if everything or arch == host:
                build.binary(arch, progress=self.app.display_info)


def _build_module(root: Path) -> Any:
    """build.py, without the package's ``__init__``: what that needs is not installed yet."""
    package = types.ModuleType("pytest_hil")
    package.__path__ = [str(root / "pytest_hil")]
    sys.modules.setdefault("pytest_hil", package)
    return importlib.import_module("pytest_hil.agent.build")
