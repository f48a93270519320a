"""boards.toml as a whole: read, checked, all its errors said at once."""

from __future__ import annotations

import stat
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pytest_hil.config import board, lab, tables, values
from pytest_hil.config.board import BoardTarget
from pytest_hil.config.model import (
    BUILTIN_IMAGE,
    BUILTIN_TARGET,
    Config,
    DebianImage,
    FilesImage,
    ImageSpec,
    QemuTarget,
    UrlImage,
)
from pytest_hil.config.resolve import agent_default, check_target
from pytest_hil.config.tables import Problems, quoted, read_keys
from pytest_hil.config.values import BadValue, shown, wrong_kind
from pytest_hil.errors import ConfigError, nearest

FILE_NAME = "boards.toml"

AnyTarget = QemuTarget | BoardTarget

_TABLES = ("group", "image", "lab", "target")

_MAX_FILE = 4 * 2**20

_KINDS: dict[str, tuple[type[DebianImage | FilesImage | UrlImage], Mapping[str, tables.Check]]] = {
    "debian": (DebianImage, tables.DEBIAN_KEYS),
    "files": (FilesImage, tables.FILES_KEYS),
    "url": (UrlImage, tables.URL_KEYS),
}


def load(path: Path | None, *, root: Path) -> Config:
    """Read a boards.toml. ``path`` None: the one in ``root``, if there is one.

    Relative paths in it are meant from its own directory. Raises ConfigError with
    everything that is wrong in it.
    """
    wanted = (root / FILE_NAME if path is None else path).absolute()
    written = _read(wanted, required=path is not None)
    if written is None:
        return Config(path=None, targets=_targets({}), images=_images({}))
    document = _parse(wanted, written)
    return _Reader(wanted).config(document)


def _read(path: Path, *, required: bool) -> bytes | None:
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):
            raise ConfigError(str(path), "not a regular file")
        if found.st_size > _MAX_FILE:
            raise ConfigError(str(path), f"{found.st_size} bytes: too large for a boards.toml")
        return path.read_bytes()
    except FileNotFoundError:
        # A dangling link is a mistake, not the absence of a file.
        if not required and not path.is_symlink():
            return None
        raise ConfigError(str(path), "there is no such file") from None
    except OSError as error:
        raise ConfigError(str(path), f"cannot be read: {error.strerror or error}") from None
    except ValueError as error:
        raise ConfigError(shown(str(path)), f"cannot be read: {error}") from None


def _parse(path: Path, written: bytes) -> dict[str, Any]:
    try:
        return tomllib.loads(written.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        line = written.count(b"\n", 0, error.start) + 1
        raise ConfigError(
            str(path),
            f"line {line}: byte 0x{written[error.start]:02x} is not UTF-8",
            mend="save the file as UTF-8",
        ) from None
    except RecursionError:
        raise ConfigError(str(path), "not TOML: arrays or tables are nested too deeply") from None
    except ValueError as error:
        # TOMLDecodeError, with line and column, or an integer of thousands of digits.
        raise ConfigError(str(path), f"not TOML: {error}") from None


@dataclass(frozen=True, slots=True)
class _Inherited:
    """The keys that a target has from a group, and those that it would have if they were right."""

    group: str = ""
    keys: frozenset[str] = frozenset()
    wrong: frozenset[str] = frozenset()


class _Reader:
    """One file being read."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._base = path.parent
        self._problems = Problems(str(path))
        # Of each target with a group. What is wrong there was said of the group.
        self._inherited: dict[str, _Inherited] = {}

    def config(self, document: Mapping[str, object]) -> Config:
        for key in document.keys() - set(_TABLES):
            self._problems.add(quoted(key), "unknown table", nearest(key, _TABLES))
        raw_images = self._named(document, "image")
        groups = self._named(document, "group")
        right = {name: self._group(name, raw) for name, raw in groups.items()}
        wrong = {name: frozenset(raw.keys() - right[name].keys()) for name, raw in groups.items()}
        raw_targets = {
            name: self._with_group(name, raw, right, wrong)
            for name, raw in self._named(document, "target").items()
        }
        images = _images({name: self._image(name, raw) for name, raw in raw_images.items()})
        shared = lab.read(document.get("lab", {}), base=self._base, problems=self._problems)
        before = len(self._problems)
        read = {name: self._target(name, raw, images) for name, raw in raw_targets.items()}
        targets = _targets({name: one for name, one in read.items() if one is not None})
        if len(self._problems) == before:
            self._check_targets(raw_targets, targets, images)
        self._problems.raise_if_any()
        return Config(path=self._path, targets=targets, images=images, lab=shared)

    def _named(self, document: Mapping[str, object], kind: str) -> dict[str, dict[str, object]]:
        """The ``[kind.NAME]`` tables whose names and types are right."""
        named = document.get(kind, {})
        if not isinstance(named, dict):
            self._problems.add(kind, wrong_kind(named, f"tables [{kind}.NAME]").message)
            return {}
        found = {}
        for name, table in named.items():
            where = f"[{kind}.{quoted(name)}]"
            try:
                values.name(name)
                if not isinstance(table, dict):
                    raise wrong_kind(table, f"a table [{kind}.NAME]")
                found[name] = table
            except BadValue as bad:
                self._problems.add(where, bad.message, bad.mend)
        return found

    def _group(self, name: str, raw: Mapping[str, object]) -> dict[str, object]:
        """What its targets get of a group: the keys that are right, or could be at one of them."""
        prefix = f"[group.{quoted(name)}] "
        keys = dict(raw)
        if keys.pop("group", None) is not None:
            self._problems.add(f"{prefix}group", "a group has no group", "name it at the targets")
        of_boards = board.checks_of(
            f"group.{name}", source=str(self._path), problems=self._problems
        )
        of_backend = {"qemu": tables.TARGET_KEYS, "board": of_boards}
        backend = keys.get("backend")
        known = of_backend.get(str(backend), {**tables.TARGET_KEYS, **of_boards})
        found = read_keys(
            keys,
            {**known, "backend": tables.plain(_backend)},
            base=self._base,
            prefix=prefix,
            problems=self._problems,
        )
        return {key: keys[key] for key, value in found.items() if value is not None}

    def _with_group(
        self,
        name: str,
        raw: dict[str, object],
        groups: Mapping[str, dict[str, object]],
        wrong: Mapping[str, frozenset[str]],
    ) -> dict[str, object]:
        """A target with the defaults of its group; tags and features are of both."""
        if "group" not in raw:
            return raw
        own = {key: value for key, value in raw.items() if key != "group"}
        named = raw["group"]
        if not isinstance(named, str) or named not in groups:
            mend = nearest(named, groups) if isinstance(named, str) else ""
            where = f"[target.{quoted(name)}] group"
            self._problems.add(where, f"there is no group {shown(named)}", mend)
            lost = frozenset({"backend", "console", "power", "reset"}) - own.keys()
            self._inherited[name] = _Inherited(wrong=lost)
            return own
        group = groups[named]
        inherited = frozenset(group.keys() - own.keys())
        self._inherited[name] = _Inherited(named, inherited, wrong[named] - own.keys())
        for key in ("tags", "features"):
            both = (group.get(key), own.get(key))
            if all(isinstance(one, list) for one in both):
                own[key] = [*both[0], *both[1]]  # type: ignore[misc]
        return {**group, **own}

    def _image(self, name: str, raw: Mapping[str, object]) -> ImageSpec:
        prefix = f"[image.{quoted(name)}] "
        try:
            kind = values.choice(raw.get("kind", "debian"), _KINDS, "kind of image")
        except BadValue as bad:
            self._problems.add(f"{prefix}kind", bad.message, bad.mend)
            return DebianImage(name)
        make, checks = _KINDS[kind]
        keys = {key: value for key, value in raw.items() if key != "kind"}
        before = len(self._problems)
        found = read_keys(keys, checks, base=self._base, prefix=prefix, problems=self._problems)
        image = make(name=name, **found)
        if len(self._problems) == before:
            self._check_image(prefix, image)
        return image

    def _check_image(self, prefix: str, image: ImageSpec) -> None:
        """What one key says about another."""
        if isinstance(image, DebianImage):
            if image.kernel_modules and not image.kernel:
                self._problems.add(
                    f"{prefix}kernel_modules",
                    "there is no kernel that they are for",
                    "add kernel =",
                )
            return
        if image.initrd and not image.kernel:
            self._problems.add(f"{prefix}initrd", "an initrd needs a kernel", "add kernel =")
        elif not image.kernel and not image.disk:
            self._problems.add(f"{prefix}kernel", "missing", "an image needs a kernel or a disk")

    def _target(
        self, name: str, raw: Mapping[str, object], images: Mapping[str, ImageSpec]
    ) -> AnyTarget | None:
        """None: what it would be is not known, or it lacks what it must have."""
        prefix = f"[target.{quoted(name)}] "
        inherited = self._inherited.get(name, _Inherited())
        checks_of_board = board.checks_of(
            f"target.{name}",
            inherited=dict.fromkeys(inherited.keys, f"group.{inherited.group}"),
            source=str(self._path),
            problems=self._problems,
        )
        keys = {key: value for key, value in raw.items() if key != "backend"}

        def read(checks: Mapping[str, tables.Check]) -> dict[str, Any]:
            return read_keys(keys, checks, base=self._base, prefix=prefix, problems=self._problems)

        match self._backend(prefix, raw, inherited):
            case "board":
                found = read(checks_of_board)
                present = raw.keys() | inherited.wrong
                return board.made(name, found, present, prefix=prefix, problems=self._problems)
            case "qemu":
                found = read(tables.TARGET_KEYS)
                found.setdefault("agent", agent_default(found))
                image = images.get(found.get("image", BUILTIN_IMAGE))
                found.setdefault("arch", (image and image.arch) or values.host_arch())
                return QemuTarget(name=name, **found)
            case _:
                read({**tables.TARGET_KEYS, **checks_of_board})
                return None

    def _backend(self, prefix: str, raw: Mapping[str, object], inherited: _Inherited) -> str:
        """The backend; an empty string where it is wrong, or missing."""
        where = f"{prefix}backend"
        backend = raw.get("backend")
        if backend is None:
            if "backend" not in inherited.wrong:
                self._problems.add(where, "missing", 'write backend = "qemu", or "board"')
            return ""
        try:
            return _backend(backend)
        except BadValue as bad:
            self._problems.add(where, bad.message, bad.mend)
            return ""

    def _check_targets(
        self,
        raw: Mapping[str, object],
        targets: Mapping[str, AnyTarget],
        images: Mapping[str, ImageSpec],
    ) -> None:
        """What a target says about its image, where both could be read."""
        for name in raw:
            target = targets.get(name)
            try:
                if isinstance(target, QemuTarget):
                    check_target(target, images)
            except BadValue as bad:
                prefix = f"[target.{quoted(name)}] "
                self._problems.add(prefix + bad.at, bad.message, bad.mend)


def _backend(value: object) -> str:
    return values.choice(value, ("qemu", "board"), "backend")


def _images(written: dict[str, ImageSpec]) -> dict[str, ImageSpec]:
    return {BUILTIN_IMAGE: DebianImage(BUILTIN_IMAGE)} | written


def _targets(written: Mapping[str, AnyTarget]) -> dict[str, AnyTarget]:
    builtin: AnyTarget = QemuTarget(BUILTIN_TARGET, arch=values.host_arch())
    return {BUILTIN_TARGET: builtin, **written}
