"""Files to the machine and back: checked at both ends, there as a whole or not at all."""

from __future__ import annotations

from pathlib import Path

from pytest_hil import Target


def test_put_a_script_and_run_it(hil: Target, tmp_path: Path) -> None:
    script = tmp_path / "hello.sh"
    script.write_text("#!/bin/sh\necho hello from $(hostname)\n")
    hil.put(script, "/tmp/hello.sh", mode=0o755)
    assert hil.run("/tmp/hello.sh").stdout.startswith("hello from hil-")


def test_get_a_log(hil: Target, tmp_path: Path) -> None:
    hil.run("dmesg > /tmp/kernel.log")
    hil.get("/tmp/kernel.log", tmp_path / "kernel.log")
    assert "Linux version" in (tmp_path / "kernel.log").read_text()


def test_a_directory_there_and_back(hil: Target, tmp_path: Path) -> None:
    (tmp_path / "tree" / "inner").mkdir(parents=True)
    (tmp_path / "tree" / "inner" / "data").write_bytes(bytes(range(256)))
    hil.put(tmp_path / "tree", "/tmp/tree")
    hil.get("/tmp/tree", tmp_path / "back")
    assert (tmp_path / "back" / "inner" / "data").read_bytes() == bytes(range(256))
