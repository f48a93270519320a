from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from pytest_hil.config import DebianImage, GuestFile
from pytest_hil.qemu.image.distribution import DEBIAN
from pytest_hil.qemu.image.recipe import recipe_key
from pytest_hil.qemu.image.sums import Sums


class Recipe:
    def __init__(self, root: Path) -> None:
        self.agent = root / "agent"
        self.file = root / "file"
        self.folder = root / "folder"
        self.kernel = root / "vmlinux"
        self.modules = root / "modules"
        self.folder.mkdir()
        (self.modules / "kernel").mkdir(parents=True)
        self.module = self.modules / "kernel/a.ko"
        for path in (self.agent, self.file, self.folder / "inner", self.kernel, self.module):
            path.write_bytes(b"one")
        self._sums = Sums(root / "cache")
        self.spec = DebianImage(
            name="my image",
            packages=("b", "a"),
            files=(GuestFile(self.file, "/file"), GuestFile(self.folder, "/folder")),
            kernel=self.kernel,
            kernel_modules=self.modules,
        )

    def key(self, *, arch: str = "x86_64", release: str = "12", **changes: object) -> str:
        return recipe_key(
            replace(self.spec, **changes),  # type: ignore[arg-type]
            arch=arch,
            agent=self.agent,
            distribution=replace(DEBIAN, release=release),
            sums=self._sums,
        )


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    return Recipe(tmp_path)


def test_it_begins_with_what_people_know(recipe: Recipe) -> None:
    assert recipe.key().startswith("my_image-x86_64-")
    assert recipe.key() == recipe.key()


def test_the_order_of_packages_does_not_matter(recipe: Recipe) -> None:
    assert recipe.key() == recipe.key(packages=("a", "b"))


@pytest.mark.parametrize(
    "changes",
    [
        {"arch": "aarch64"},
        {"release": "13"},
        {"packages": ("a",)},
        {"modules": ("m",)},
        {"startup": ("s",)},
        {"append": "quiet"},
        {"files": ()},
        {"kernel": None, "kernel_modules": None},
        {"kernel_modules": None},
    ],
)
def test_another_recipe_is_another_key(recipe: Recipe, changes: dict[str, object]) -> None:
    assert recipe.key() != recipe.key(**changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "name", ["agent", "file", "folder/inner", "vmlinux", "modules/kernel/a.ko"]
)
def test_other_contents_are_another_key(recipe: Recipe, tmp_path: Path, name: str) -> None:
    before = recipe.key()
    (tmp_path / name).write_bytes(b"two, longer")

    assert recipe.key() != before


def test_another_mode_is_another_key(recipe: Recipe) -> None:
    before = recipe.key()
    os.chmod(recipe.file, 0o755)  # noqa: PTH101

    assert recipe.key() != before
