"""What a target boots, and what a marker or an option changes about a target."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path

from pytest_hil.config import values
from pytest_hil.config.model import (
    BUILTIN_IMAGE,
    Config,
    DebianImage,
    FilesImage,
    ImageSpec,
    QemuTarget,
    UrlImage,
)
from pytest_hil.config.tables import TARGET_KEYS, Problems, read_keys
from pytest_hil.config.values import BadValue
from pytest_hil.errors import ConfigError, nearest


def image_spec(target: QemuTarget, config: Config) -> ImageSpec:
    """What ``target`` boots: its image, with the files of its own.

    - a kernel alone: the image's initramfs with that kernel (``--hil-kernel``);
    - a kernel alone and no agent, no image named: that file and nothing else (bare metal, U-Boot);
    - kernel and initrd, or a disk: those files.

    The target's ``append`` is not in it: it belongs to the machine, not to the image.
    Raises ConfigError when they do not fit together or a file is missing.
    """
    try:
        spec = combine(target, config.images)
    except BadValue as bad:
        where = f"{config.source}: the target {target.name}'s {bad.at}"
        raise ConfigError(where, bad.message, mend=bad.mend) from None
    _check_files(spec, target, config)
    return spec


def with_overrides(
    target: QemuTarget,
    *,
    config: Config | None = None,
    base: Path | None = None,
    where: str = "@pytest.mark.hil",
    **overrides: object,
) -> QemuTarget:
    """``target`` with other values: the keys and the values' forms are those of ``[target.NAME]``.

    None means "as it is". Relative paths are meant from ``base`` (None: the current
    directory); ``where`` names who asked, for messages. With ``config``, what the whole
    says about its image is checked too. Raises ConfigError with everything that is wrong.
    """
    problems = Problems(where)
    given = {key: value for key, value in overrides.items() if value is not None}
    base = Path.cwd() if base is None else base.absolute()
    found = read_keys(given, TARGET_KEYS, base=base, prefix="", problems=problems)
    problems.raise_if_any()
    if not agent_default(found):
        found.setdefault("agent", False)
    changed = dataclasses.replace(target, **found)
    if config is not None:
        try:
            check_target(changed, config.images)
        except BadValue as bad:
            problems.add(bad.at, bad.message, bad.mend)
        problems.raise_if_any()
    return changed


def agent_default(written: Mapping[str, object]) -> bool:
    """``agent`` where it is not written: our initramfs has one, the user's files have none."""
    return not (written.get("initrd") or written.get("disk"))


def check_target(target: QemuTarget, images: Mapping[str, ImageSpec]) -> None:
    """What a target's keys say about each other; BadValue whose ``at`` is the key."""
    spec = combine(target, images)
    if target.forwards and target.network == "none":
        raise BadValue("there is no network to forward to", "remove one of the two", at="forwards")
    has_agent = target.agent and (isinstance(spec, DebianImage) or spec.agent)
    if target.ready and has_agent:
        raise BadValue(
            "is for machines without an agent; here the agent says when it is ready",
            "remove it, or add agent = false",
            at="ready",
        )


def combine(target: QemuTarget, images: Mapping[str, ImageSpec]) -> ImageSpec:
    """:func:`image_spec` without a look at the files; BadValue whose ``at`` is the key."""
    if target.initrd or target.disk:
        return _own_files(target)
    if target.kernel_modules and not target.kernel:
        raise BadValue("there is no kernel that they are for", "add kernel =", at="kernel_modules")
    if target.image not in images:
        raise BadValue(
            f"there is no image {values.shown(target.image)}",
            nearest(target.image, images),
            at="image",
        )
    spec = images[target.image]
    if spec.arch and spec.arch != target.arch:
        raise BadValue(
            f"the target is {target.arch}, its image {spec.name} is {spec.arch}",
            f'write arch = "{spec.arch}", or choose another image',
            at="arch",
        )
    return spec if target.kernel is None else _with_kernel(target, spec, target.kernel)


def _own_files(target: QemuTarget) -> FilesImage:
    """The target's kernel + initrd, or disk."""
    key = "initrd" if target.initrd else "disk"
    if target.initrd and not target.kernel:
        raise BadValue("an initrd needs a kernel", "add kernel =", at="initrd")
    if target.image != BUILTIN_IMAGE:
        raise BadValue(
            f"the target boots the image {target.image} or a {key} of its own, not both",
            f"remove image = or {key} =",
            at=key,
        )
    if target.kernel_modules:
        raise BadValue(
            f"modules go into pytest-hil's initramfs, which this target's {key} replaces",
            f"remove kernel_modules = or {key} =",
            at="kernel_modules",
        )
    return FilesImage(
        name=target.name,
        kernel=target.kernel,
        initrd=target.initrd,
        disk=target.disk,
        arch=target.arch,
        agent=target.agent,
    )


def _with_kernel(target: QemuTarget, spec: ImageSpec, kernel: Path) -> ImageSpec:
    """An image with the target's kernel instead of its own."""
    if isinstance(spec, DebianImage) and (target.agent or target.image != BUILTIN_IMAGE):
        return dataclasses.replace(spec, kernel=kernel, kernel_modules=target.kernel_modules)
    if target.kernel_modules:
        raise BadValue(
            "modules go into pytest-hil's initramfs, which this target does not boot",
            "remove it",
            at="kernel_modules",
        )
    if isinstance(spec, FilesImage):
        return dataclasses.replace(spec, kernel=kernel)
    if isinstance(spec, UrlImage):
        raise BadValue(
            f"the image {spec.name} is fetched as a whole; it takes no other kernel",
            'remove kernel =, or make the image one of kind "files"',
            at="kernel",
        )
    return FilesImage(name=target.name, kernel=kernel, arch=target.arch, agent=False)


def _check_files(spec: ImageSpec, target: QemuTarget, config: Config) -> None:
    """Every file that is about to be used is there and can be read."""
    if isinstance(spec, UrlImage):
        return
    for key in ("kernel", "kernel_modules", "initrd", "disk"):
        path = getattr(spec, key, None)
        if path is not None:
            wrong = _unusable(path, directory=key == "kernel_modules")
            if wrong:
                raise ConfigError(_who_named(key, path, target, config), f"{path}: {wrong}")
    for file in spec.files if isinstance(spec, DebianImage) else ():
        wrong = _unusable(file.source, directory=None)
        if wrong:
            where = f"{config.source}: [image.{spec.name}] files"
            raise ConfigError(where, f"{file.source}: {wrong}")


def _who_named(key: str, path: Path, target: QemuTarget, config: Config) -> str:
    """The table that a file comes from, or the option or marker that is not in the file."""
    written = config.targets.get(target.name)
    if getattr(config.images.get(target.image), key, None) == path:
        return f"{config.source}: [image.{target.image}] {key}"
    if written is not None and getattr(written, key) == path:
        return f"{config.source}: [target.{target.name}] {key}"
    return f"the {key} given for the target {target.name}"


def _unusable(path: Path, *, directory: bool | None) -> str:
    """Why a file (or directory; None: either) cannot be used; "" if it can."""
    try:
        is_directory = path.is_dir()
        if not path.exists():
            return "there is no such file"
    except OSError as error:
        return error.strerror or str(error)
    if directory is not None and is_directory != directory:
        return "not a directory" if directory else "a directory, not a file"
    return "" if os.access(path, os.R_OK) else "no permission to read it"
