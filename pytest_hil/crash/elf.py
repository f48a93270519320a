"""What we need of an ELF file, read without its tools: symbols, sections, the build id.

The formats are those of the System V gABI, chapters 4 and 5.
"""

from __future__ import annotations

import mmap
import struct
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pytest_hil.errors import ConfigError

_RELOCATABLE = 1
_SYMTAB, _NOTE = 2, 7
_ALLOCATED, _EXECUTABLE = 2, 4
_NO_TYPE, _FUNCTION = 0, 2
_BUILD_ID = 3


@dataclass(frozen=True, slots=True)
class Section:
    name: str
    type: int
    flags: int
    address: int
    offset: int
    size: int
    link: int

    @property
    def executable(self) -> bool:
        return self.flags & (_ALLOCATED | _EXECUTABLE) == _ALLOCATED | _EXECUTABLE


@dataclass(frozen=True, slots=True)
class Function:
    """``sizes``: as the symbol says it, and up to the next symbol, as the kernel reckons it.

    ``last``: none is after it in its section. The kernel then counts all up to a page.
    """

    section: str
    address: int
    sizes: tuple[int, int]
    last: bool


class Elf:
    """An ELF file, 32 or 64 bits, of either byte order. Raises ConfigError if it is none."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with path.open("rb") as file:
                data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except (OSError, ValueError) as error:
            raise ConfigError(str(path), f"it cannot be read: {error}") from None
        with data:
            if data[:4] != b"\x7fELF" or len(data) < 52:
                raise ConfigError(
                    str(path),
                    "it is no ELF file",
                    mend="Name vmlinux, not vmlinuz or bzImage.",
                )
            self._wide = data[4] == 2
            self._order = ">" if data[5] == 2 else "<"
            try:
                self.relocatable = self._unpack("H", data, 16)[0] == _RELOCATABLE
                self.sections = list(self._sections(data))
                self.functions = self._functions(data)
                self.build_id = self._build_id(data)
            except (struct.error, IndexError, ValueError) as error:
                raise ConfigError(str(path), f"it is damaged: {error}") from None

    @property
    def has_lines(self) -> bool:
        """Whether it knows files and lines."""
        return any(each.name in (".debug_line", ".zdebug_line") for each in self.sections)

    def executes(self, address: int) -> bool:
        """Whether there is code at an address."""
        return not self.relocatable and any(
            each.executable and each.address <= address < each.address + each.size
            for each in self.sections
        )

    def _unpack(self, form: str, data: mmap.mmap, offset: int) -> tuple[int, ...]:
        return struct.unpack_from(self._order + form, data, offset)

    def _sections(self, data: mmap.mmap) -> Iterator[Section]:
        if self._wide:
            (table,) = self._unpack("Q", data, 40)
            size, count, names = self._unpack("HHH", data, 58)
            form = "IIQQQQI"
        else:
            (table,) = self._unpack("I", data, 32)
            size, count, names = self._unpack("HHH", data, 46)
            form = "IIIIIII"
        if not table:
            return
        headers = [self._unpack(form, data, table + number * size) for number in range(count or 1)]
        if not count:  # more than 65,279: the first header says how many
            headers = [
                self._unpack(form, data, table + number * size) for number in range(headers[0][5])
            ]
        strings = headers[headers[0][6] if names == 0xFFFF else names]
        for name, kind, flags, address, offset, length, link in headers:
            text = _string(data, strings[4] + name)
            yield Section(text, kind, flags, address, offset, length, link)

    def _functions(self, data: mmap.mmap) -> dict[str, list[Function]]:
        table = next((each for each in self.sections if each.type == _SYMTAB), None)
        if table is None:
            return {}
        form, at = ("IBBHQQ", (0, 4, 5, 1, 3)) if self._wide else ("IIIBBH", (0, 1, 2, 3, 5))
        step = struct.calcsize(self._order + form)
        symbols = struct.iter_unpack(
            self._order + form, data[table.offset : table.offset + table.size // step * step]
        )
        strings = self.sections[table.link].offset
        found: list[tuple[int, int, int, str]] = []
        for fields in symbols:
            name, address, size, info, index = (fields[each] for each in at)
            inside = index < len(self.sections) and self.sections[index].executable
            if inside and info & 15 in (_NO_TYPE, _FUNCTION) and name:
                text = _string(data, strings + name)
                if not text.startswith(("$", ".L")):  # arm's marks of code and data
                    found.append((index, address, size, text))
        found.sort()
        functions: dict[str, list[Function]] = defaultdict(list)
        following: tuple[int, int] = (-1, 0)  # section and address of what comes next
        for number in reversed(range(len(found))):
            index, address, size, text = found[number]
            section = self.sections[index]
            after = found[number + 1][:2] if number + 1 < len(found) else (-1, 0)
            following = after if after != (index, address) else following
            last = following[0] != index
            end = section.address + section.size if last else following[1]
            functions[text].append(Function(section.name, address, (size, end - address), last))
        return dict(functions)

    def _build_id(self, data: mmap.mmap) -> str:
        for section in self.sections:
            at, end = section.offset, section.offset + section.size
            while section.type == _NOTE and at + 12 <= end:
                name, size, kind = self._unpack("III", data, at)
                body = at + 12 + (name + 3 & ~3)
                if kind == _BUILD_ID and data[at + 12 : at + 16] == b"GNU\0":
                    return data[body : body + size].hex()
                at = body + (size + 3 & ~3)
        return ""


def _string(data: mmap.mmap, offset: int) -> str:
    return data[offset : data.find(b"\0", offset)].decode(errors="replace")
