"""Whatever is written: a Config or a ConfigError, and nothing else."""

from __future__ import annotations

import datetime
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pytest_hil.config import Config, QemuTarget, image_spec, load, with_overrides
from pytest_hil.config.tables import DEBIAN_KEYS, FILES_KEYS, TARGET_KEYS, URL_KEYS
from pytest_hil.errors import ConfigError

KEYS = sorted({*TARGET_KEYS, *DEBIAN_KEYS, *FILES_KEYS, *URL_KEYS, "backend", "kind"})
WORDS = ["qemu", "board", "debian", "files", "url", "t", "x86_64", "arm", "512M", "22/udp", "open"]
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)

scalars = st.one_of(
    st.sampled_from(WORDS),
    TEXT,
    st.booleans(),
    st.integers(),
    st.floats(),
    st.dates(datetime.date(1, 1, 1)),
)
names = st.one_of(st.sampled_from([*WORDS, "url", "sha256", "source", "path", "mode"]), TEXT)
items = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3)
)
named = st.dictionaries(
    names, items | st.dictionaries(st.sampled_from(KEYS), items, max_size=6), max_size=3
)
documents = st.dictionaries(
    st.sampled_from(["target", "image", "board"]), named | items, max_size=3
)


def read(tmp_path: Path, text: str) -> Config:
    path = tmp_path / "boards.toml"
    path.write_text(text)
    return load(path, root=tmp_path)


def toml(value: Any) -> str:
    """A value as TOML writes it inline."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{toml(k)} = {toml(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, bool):
        return str(value).lower()
    return str(value)


def error_of(call: Callable[[], object]) -> str:
    """The message of its ConfigError, "" if it has none; any other error is the test's."""
    try:
        call()
    except ConfigError as error:
        return str(error)
    return ""


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(document=documents)
def test_any_document_is_a_config_or_a_config_error(
    tmp_path: Path, document: dict[str, Any]
) -> None:
    text = "\n".join(f"{toml(key)} = {toml(value)}" for key, value in document.items())
    message = error_of(lambda: read(tmp_path, text))
    # The document is TOML: what is wrong must be something that it says.
    assert "not TOML" not in message
    if not message:
        config = load(tmp_path / "boards.toml", root=tmp_path)
        for target in config.targets.values():
            # Only the files can be missing now, which loading does not look for.
            wrong = error_of(lambda target=target: image_spec(target, config))  # type: ignore[misc]
            assert not wrong or re.search(r"no such|not a|a directory|too long|null byte", wrong)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(written=st.binary(max_size=40))
def test_any_bytes_are_a_config_or_a_config_error(tmp_path: Path, written: bytes) -> None:
    path = tmp_path / "boards.toml"
    path.write_bytes(written)
    message = error_of(lambda: load(path, root=tmp_path))
    assert not message or str(path) in message


@settings(deadline=None)
@given(overrides=st.dictionaries(st.sampled_from([*sorted(TARGET_KEYS), "nonsense"]), items))
def test_any_override_is_a_target_or_a_config_error(overrides: dict[str, Any]) -> None:
    target = QemuTarget("t", arch="x86_64")
    message = error_of(lambda: with_overrides(target, **overrides))
    assert not message or message.startswith("@pytest.mark.hil: ")
