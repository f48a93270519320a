from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from pytest_hil.cache import Cache
from pytest_hil.cli.main import main
from pytest_hil.qemu.image.manifest import Manifest, sum_of

BOARDS = """
[image.far]
kind = "url"
arch = "aarch64"
kernel = {{ url = "{url}", sha256 = "{sha256}" }}

[image.broken]
kind = "url"
kernel = {{ url = "{url}", sha256 = "{wrong}" }}

[image.mine]
kind = "files"
disk = "disk.qcow2"
"""


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "6")
        self.end_headers()
        self.wfile.write(b"kernel")

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def url() -> Iterator[str]:
    """Of a server that sends ``kernel``, whatever it is asked for."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/Image"
        server.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch) -> Cache:
    """The verb's cache; and a boards.toml in the current directory."""
    (tmp_path / "disk.qcow2").write_bytes(b"disk")
    sha256 = hashlib.sha256(b"kernel").hexdigest()
    (tmp_path / "boards.toml").write_text(BOARDS.format(url=url, sha256=sha256, wrong="0" * 64))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTEST_HIL_CACHE", str(tmp_path / "cache"))
    return Cache(tmp_path / "cache")


def add_image(cache: Cache, name: str) -> Path:
    """A built image, as far as these verbs look."""

    def build(folder: Path) -> None:
        (folder / "kernel").write_bytes(b"kernel")
        Manifest(
            name=name,
            key="k",
            arch="x86_64",
            kernel="kernel",
            initrd="kernel",
            append="",
            agent=True,
            built=1.0,
            unpacked=1,
            kernel_version="6.1.0",
            files={"kernel": sum_of(folder / "kernel")},
        ).write(folder)

    return cache.make("image", f"{name}-x86_64-0123", build)


def said_json(capsys: pytest.CaptureFixture[str]) -> Any:
    return json.loads(capsys.readouterr().out)


def test_build_fetches_and_says_where_it_is(
    cache: Cache, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["image", "build", "far", "mine", "--json"]) == 0

    far, mine = said_json(capsys)
    assert (far["name"], far["arch"]) == ("far", "aarch64")
    assert Path(far["kernel"]).read_bytes() == b"kernel"
    assert [Path(disk).name for disk in mine["disks"]] == ["disk.qcow2"]


def test_progress_goes_to_stderr_once_for_each_step(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["image", "build", "far"]) == 0

    said = capsys.readouterr()
    assert said.err.splitlines() == [
        "far (aarch64): fetching Image: 0 of 0 MB",
        "far (aarch64): checking Image",
    ]
    assert said.out.startswith("far (aarch64): /")


@pytest.mark.parametrize(
    ("argv", "code", "said"),
    [
        (["build", "farr"], 2, "did you mean 'far'?"),
        (["build", "far", "--arch", "x86_64"], 2, "the image is for aarch64"),
        (["build", "broken"], 1, "its sha256 is"),
        (["build", "--boards", "gone.toml"], 2, "gone.toml: there is no such file"),
        (["rm"], 2, "give names, or --all"),
        (["rm", "far", "--all"], 2, "give names, or --all"),
        (["rm", "gone"], 2, "there is no 'gone' in"),
        (["verify", "gone"], 2, "there is no 'gone' in"),
    ],
)
def test_what_goes_wrong_is_said(
    argv: list[str], code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["image", *argv]) == code
    assert said in capsys.readouterr().err


def test_a_typo_in_the_last_name_costs_no_build(cache: Cache) -> None:
    assert main(["image", "build", "far", "nonsense"]) == 2
    assert not cache.root.exists()


def test_list(cache: Cache, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["image", "list"]) == 0
    assert capsys.readouterr().out == f"no images in {cache.root}\n"

    add_image(cache, "debian")
    main(["image", "build", "far"])
    capsys.readouterr()

    assert main(["image", "list"]) == 0
    header, image, fetched = capsys.readouterr().out.splitlines()
    assert header.split()[:3] == ["name", "arch", "MB"]
    assert image.split()[:2] == ["debian", "x86_64"]
    assert "Linux 6.1.0" in image
    assert fetched.split()[0] == "Image"
    assert "http://" in fetched
    assert main(["image", "list", "--json"]) == 0
    image, fetched = said_json(capsys)
    assert (image["kind"], image["name"], image["built"]) == ("image", "debian", 1.0)
    assert (fetched["kind"], fetched["name"]) == ("download", "Image")


def test_verify(cache: Cache, capsys: pytest.CaptureFixture[str]) -> None:
    good, bad = add_image(cache, "good"), add_image(cache, "bad")
    (bad / "kernel").write_bytes(b"Kernel")

    assert main(["image", "verify", "good"]) == 0
    assert capsys.readouterr().out == f"{good.name}: ok\n"
    assert main(["image", "verify"]) == 1
    assert f"{bad.name}: kernel has sha256" in capsys.readouterr().out
    assert main(["image", "verify", "bad", "--json"]) == 1
    [result] = said_json(capsys)
    assert len(result["damage"]) == 1


def test_an_image_of_another_version_is_listed_and_can_go(
    cache: Cache, capsys: pytest.CaptureFixture[str]
) -> None:
    path = add_image(cache, "old")
    (path / "manifest.json").write_text('{"format": 0}')

    assert main(["image", "list"]) == 0
    assert "of another version of pytest-hil" in capsys.readouterr().out
    assert main(["image", "verify"]) == 1
    assert main(["image", "rm", path.name]) == 0
    assert not path.exists()


def test_rm(cache: Cache, capsys: pytest.CaptureFixture[str]) -> None:
    one, two = add_image(cache, "one"), add_image(cache, "two")
    main(["image", "build", "far"])

    assert main(["image", "rm", "one"]) == 0
    assert f"removed {one.name}" in capsys.readouterr().out
    assert two.exists()
    assert main(["image", "rm", "--all"]) == 0
    assert cache.entries("image") == []
    assert cache.entries("download") == []
