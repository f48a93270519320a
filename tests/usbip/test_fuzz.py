"""The fuzzer's targets on its seeds, so that they keep working; scripts/fuzz-usbip goes on."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from tests.usbip.fuzz import targets
from tests.usbip.fuzz.seeds import SEEDS

SCRIPT = Path(__file__).parents[2] / "scripts" / "fuzz-usbip"
# The whole, bytes one by one, and cuts in the middle of headers.
CUTS = (0, 1, 7, 48, 255)


@pytest.mark.parametrize("name", SEEDS)
def test_every_seed_however_it_is_cut(name: str) -> None:
    with ExitStack() as stack:
        target: targets.Target
        if name == "live-exporter":
            target = stack.enter_context(closing(targets.LiveExporter()))
        else:
            target = getattr(targets, name.replace("-", "_"))
        for seed in SEEDS[name]():
            for cut in CUTS:
                target(bytes([seed[0], cut]) + seed[2:])
                # And its first half: whatever begins may end at any time.
                target(bytes([seed[0], cut]) + seed[2 : len(seed) // 2])


@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec("atheris") is None,
    reason="Atheris has no wheel for this Python or machine",
)
def test_a_little_fuzzing(tmp_path: Path) -> None:
    command = [sys.executable, str(SCRIPT), "--runs", "20000", "--seed", "1"]
    done = subprocess.run(
        [*command, "--corpus", str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    found = re.findall(r"(\S+): (\d+) runs, (\d+) inputs, (\d+) edges", done.stdout)
    assert [name for name, *_rest in found] == list(SEEDS)
    # That the seeds reach the messages: far fewer edges mean that it fuzzes a closed door.
    assert all(int(edges) > 120 for *_rest, edges in found), done.stdout
