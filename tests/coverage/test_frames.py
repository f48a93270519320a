"""Counters out of a console, whatever happened to it: whole, or said; never wrong.

The sender is the firmware's own C code, built for this host.
"""

from __future__ import annotations

import random
import re
import select
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_hil.coverage import records
from pytest_hil.coverage.frames import Decoder, request
from pytest_hil.coverage.gcov import Counters, Gcov
from pytest_hil.coverage.paths import Sources


@pytest.fixture(scope="module")
def stream(dumper: Path) -> bytes:
    """What a sender says that receives nothing: two dumps, each twice."""
    return subprocess.run([dumper], check=True, capture_output=True, timeout=60).stdout


@pytest.fixture(scope="module")
def truth(stream: bytes) -> bytes:
    """The second dump's one file, when nothing happens to it."""
    decoder = Decoder()
    assert decoder.feed(stream) == b""
    decoder.finish()
    assert decoder.problems == []
    (files,) = decoder.boots
    (content,) = files.values()
    return content


def dumps_of(stream: bytes) -> tuple[bytes, bytes]:
    """The text of the first dump (both passes), and of the second."""
    first, second = stream.split(b"and on\n")[:2]
    return first, second


def one_pass(dump: bytes) -> bytes:
    """Its first pass."""
    return dump[: dump.index(b"\n", dump.index(b":Z05:")) + 1]


def whole(data: bytes, split: int = 0) -> Decoder:
    decoder = Decoder()
    decoder.feed(data[:split])
    decoder.feed(data[split:])
    decoder.finish()
    return decoder


def test_it_is_the_file_that_gcov_reads(dumper: Path, truth: bytes, tmp_path: Path) -> None:
    name = f"{dumper.parent}/work.gcda"
    records.read_data(truth, name)
    (tmp_path / "work.gcda").write_bytes(truth)
    read = Gcov(Sources((dumper.parent,))).read([Counters(tmp_path / "work.gcda", name)])
    assert read.problems == []
    (file,) = read.files
    # It worked twice until the second dump, which includes the first.
    assert {name: n for (_, name), n in file.functions.items()}["work"] == 2


def test_an_earlier_dump_of_the_same_start_is_not_added(stream: bytes, truth: bytes) -> None:
    first = whole(dumps_of(stream)[0])
    assert list(first.boots[0].values()) != [truth]
    assert list(whole(stream).boots[0].values()) == [truth]


def test_any_pieces_are_the_same(stream: bytes, truth: bytes) -> None:
    for split in range(0, len(stream), 97):
        assert list(whole(stream, split).boots[0].values()) == [truth]
    decoder = Decoder()
    for byte in stream:
        decoder.feed(bytes([byte]))
    decoder.finish()
    assert list(decoder.boots[0].values()) == [truth]


@pytest.mark.parametrize("end", [b"\n", b"\r", b"\r\n", b"\r\r\n", b" [0.1]\r\n"])
def test_any_ends_of_lines_are_the_same(stream: bytes, truth: bytes, end: bytes) -> None:
    assert list(whole(stream.replace(b"\r\n", end)).boots[0].values()) == [truth]


def test_other_text_between_and_before_frames_is_left_alone(dumper: Path, truth: bytes) -> None:
    env = {"NOISE": "some !HG1:broken text, \xff and no end of line> "}
    done = subprocess.run([dumper], check=True, capture_output=True, timeout=60, env=env)
    decoder = whole(done.stdout)
    assert decoder.problems == []
    assert list(decoder.boots[0].values()) == [truth]


def test_a_cut_stream_is_said_and_no_half_file_counts(stream: bytes, truth: bytes) -> None:
    """Killed in its first dump, at every frame."""
    first = one_pass(dumps_of(stream)[0])
    ends = [found.start() for found in re.finditer(rb"!HG1:", first)][1:]
    assert len(ends) > 8
    for end in ends:
        decoder = whole(first[:end])
        files = list(decoder.boots[0].values())
        assert len(decoder.problems) == 1
        assert "it ended in the middle" in str(decoder.problems[0])
        # The last frame but one ends the file: it is whole then.
        assert files == [] or end == ends[-1]
    assert whole(first).problems == []


def test_lost_frames_of_the_first_pass_are_in_the_second(stream: bytes, truth: bytes) -> None:
    lines = dumps_of(stream)[1].split(b"\n")
    middle = len(lines) // 2
    for lost in range(1, middle - 2):
        decoder = whole(b"\n".join(lines[:lost] + lines[lost + 1 :]))
        assert decoder.problems == []
        assert list(decoder.boots[0].values()) == [truth]


def test_what_is_lost_in_all_passes_is_said(stream: bytes) -> None:
    second = dumps_of(stream)[1]
    lines = [line for line in second.split(b"\n") if b":000003:D" not in line]
    decoder = whole(b"\n".join(lines))
    assert decoder.boots == [{}]
    assert "frames 3 to 3 of 1" in str(decoder.problems[0])
    assert "the 0 files of it that are whole were counted" in str(decoder.problems[0])


@pytest.mark.parametrize("seed", range(60))
def test_a_bad_line_is_never_a_wrong_count(stream: bytes, truth: bytes, seed: int) -> None:
    """Bytes lost, changed, added, doubled: the file is right, or there is none and it is said."""
    rng = random.Random(seed)
    data = bytearray(dumps_of(stream)[1])
    for _ in range(rng.randrange(1, 30)):
        at = rng.randrange(len(data))
        what = rng.randrange(4)
        if what == 0:
            del data[at : at + rng.randrange(1, 200)]
        elif what == 1:
            data[at] ^= 1 << rng.randrange(8)
        elif what == 2:
            data[at:at] = bytes(rng.randrange(256) for _ in range(rng.randrange(1, 9)))
        else:
            data[at:at] = data[at : at + rng.randrange(300)]
        if not data:
            break
    decoder = whole(bytes(data))
    found = [content for files in decoder.boots for content in files.values()]
    assert found in ([truth], [], [truth, truth])
    if not found:
        assert decoder.problems or b"!HG1" not in data


def test_a_new_start_is_added(stream: bytes, truth: bytes) -> None:
    """Restarted by itself: known by its first dump, which has the number of an earlier one."""
    decoder = whole(stream + b"\nboot\n" + stream)
    assert [list(files.values()) for files in decoder.boots] == [[truth], [truth]]
    decoder = Decoder()
    decoder.feed(stream)
    decoder.restarted()
    decoder.feed(stream)
    decoder.finish()
    assert [list(files.values()) for files in decoder.boots] == [[truth], [truth]]


def test_a_late_pass_of_a_dump_that_is_over_is_not_a_new_start(stream: bytes) -> None:
    first = dumps_of(stream)[0]
    half = len(one_pass(first))
    decoder = Decoder()
    decoder.feed(first[:half])
    decoder.finish()
    decoder.feed(first[half:])
    decoder.finish()
    assert len(decoder.boots) == 1
    assert decoder.problems == []


class Conversation:
    """A sender that receives, as a process, over a line that loses some of what passes."""

    def __init__(self, dumper: Path, seed: int, loss: float) -> None:
        self._argv = [str(dumper), "receive"]
        self._rng = random.Random(seed)
        self._loss = loss
        self.decoder = Decoder()
        self.asked = 0

    def run(self) -> Decoder:
        pipe = subprocess.PIPE
        with subprocess.Popen(self._argv, stdin=pipe, stdout=pipe, bufsize=0) as process:
            out, back = process.stdout, process.stdin
            assert out is not None
            assert back is not None
            rest = b""
            while True:
                if not select.select([out], [], [], 0.3)[0]:
                    # It has no clock: this is where its patience ends.
                    back.write(b"\n" * 4096)
                    continue
                data = out.read(65536)
                if not data:
                    break
                *lines, rest = (rest + data).split(b"\n")
                for line in lines:
                    back.write(self._pass(line + b"\n"))
        self.decoder.finish()
        return self.decoder

    def _pass(self, line: bytes) -> bytes:
        if self._rng.random() < self._loss:
            at = self._rng.randrange(len(line) - 1)
            line = line[:at] + line[at + 1 :]
        answer = self.decoder.feed(line)
        self.asked += bool(answer)
        if answer and self._rng.random() < self._loss:
            answer = answer[:9] + answer[10:]
        return answer


def test_what_can_receive_needs_one_pass(dumper: Path, truth: bytes) -> None:
    conversation = Conversation(dumper, 0, 0.0)
    decoder = conversation.run()
    assert conversation.asked == 2  # "that was all", for each dump
    assert list(decoder.boots[0].values()) == [truth]
    assert decoder.problems == []


@pytest.mark.parametrize("seed", range(1, 5))
def test_lost_frames_are_asked_for(dumper: Path, truth: bytes, seed: int) -> None:
    conversation = Conversation(dumper, seed, 0.25)
    decoder = conversation.run()
    assert conversation.asked > 2
    assert list(decoder.boots[-1].values()) == [truth]


def test_a_request_is_as_the_firmware_reads_it() -> None:
    assert re.fullmatch(
        rb"!HR1:[0-9a-f]{4}:[0-9a-f]{6}:[0-9a-f]{6}:[0-9a-f]{8}\n", request(1, 2, 3)
    )
    assert len(request(0xFFFF, 0xFFFFFF, 0)) == 33


@given(st.lists(st.binary(max_size=60) | st.sampled_from([b"!HG1:", b"\n", b"0000:000000:Z05:"])))
def test_no_bytes_do_more_than_be_left_alone(pieces: list[bytes]) -> None:
    decoder = Decoder()
    for piece in pieces:
        decoder.feed(piece)
    decoder.finish()
    assert decoder.boots == [{}]


def test_an_endless_line_takes_no_memory() -> None:
    decoder = Decoder()
    for _ in range(100):
        decoder.feed(b"!HG1:" + b"0" * 100_000)
    assert len(decoder._line) < 1000
