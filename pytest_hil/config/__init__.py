"""boards.toml → frozen dataclasses.

``model`` has the dataclasses, ``values`` checks one value, ``tables`` one table,
``load`` the whole file; ``resolve`` says what a target boots, and applies what a
marker or an option changes about a target.
"""

from __future__ import annotations

from pytest_hil.config.board import BoardTarget, PoolTarget, refuse_overrides
from pytest_hil.config.load import load
from pytest_hil.config.model import (
    BUILTIN_IMAGE,
    BUILTIN_TARGET,
    Config,
    DebianImage,
    Download,
    FilesImage,
    Forward,
    GuestFile,
    ImageSpec,
    LabConfig,
    MiB,
    QemuTarget,
    UrlImage,
)
from pytest_hil.config.resolve import image_spec, with_overrides
from pytest_hil.config.values import ARCHES, host_arch

__all__ = [
    "ARCHES",
    "BUILTIN_IMAGE",
    "BUILTIN_TARGET",
    "BoardTarget",
    "Config",
    "DebianImage",
    "Download",
    "FilesImage",
    "Forward",
    "GuestFile",
    "ImageSpec",
    "LabConfig",
    "MiB",
    "PoolTarget",
    "QemuTarget",
    "UrlImage",
    "host_arch",
    "image_spec",
    "load",
    "refuse_overrides",
    "with_overrides",
]
