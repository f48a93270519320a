from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pytest_hil.qemu.image.elf import Needs, needs

if TYPE_CHECKING:
    from tests.qemu.image.conftest import Make


def test_a_program_names_its_libraries_and_its_linker(make: Make) -> None:
    program = make.elf(needed=("libb.so.2", "liba.so.1"), interpreter="/lib64/ld.so")

    assert needs(program) == Needs("/lib64/ld.so", ("libb.so.2", "liba.so.1"))


def test_a_static_program_needs_nothing(make: Make) -> None:
    assert needs(make.elf()) == Needs()


@pytest.mark.parametrize("data", [b"", b"#!/bin/sh\n", b"\x7fELF", b"\x7fELF\x02\x01" + bytes(20)])
def test_what_is_no_elf_file_needs_nothing(data: bytes) -> None:
    assert needs(data) == Needs()


def test_this_very_python_needs_the_c_library() -> None:
    found = needs(Path(sys.executable).resolve().read_bytes())

    assert any(name.startswith("libc.") for name in found.libraries)
    assert Path(found.interpreter).exists()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(position=st.integers(0, 600), value=st.integers(0, 255))
def test_a_damaged_file_raises_nothing(make: Make, position: int, value: int) -> None:
    program = bytearray(make.elf(needed=("liba.so.1",), interpreter="/lib64/ld.so"))
    program[position % len(program)] = value

    assert isinstance(needs(bytes(program)), Needs)
