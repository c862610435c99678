"""Lines and a supervisor that doesn't read, reads late, or is gone."""

from __future__ import annotations

import os
import select
from typing import TYPE_CHECKING

import pytest

from tflotilla.device.handover import Handover

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reader, writer = os.pipe()
    yield reader, writer
    for descriptor in (reader, writer):
        try:
            os.close(descriptor)
        except OSError:
            continue


def _read_what_is_there(reader: int) -> bytes:
    data = b""
    while select.select([reader], [], [], 0)[0]:
        piece = os.read(reader, 1 << 20)
        if not piece:
            break
        data += piece
    return data


def test_a_line_arrives_at_once(pipe: tuple[int, int]) -> None:
    handover = Handover(pipe[1])

    handover.offer(b"M", b'{"count":1}')

    assert _read_what_is_there(pipe[0]) == b'M{"count":1}\n'
    assert not handover.waiting


def test_offering_never_blocks_and_memory_stays_bounded(pipe: tuple[int, int]) -> None:
    handover = Handover(pipe[1], limit_bytes=1 << 20)
    line = b"x" * 50_000

    for _ in range(400):
        handover.offer(b"P", line, results=7)

    assert handover.waiting_bytes <= 1 << 20
    dropped = handover.take_dropped()
    assert dropped > 0
    assert dropped % 7 == 0
    assert handover.take_dropped() == 0


def test_no_result_is_lost_uncounted(pipe: tuple[int, int]) -> None:
    """What arrives and what was dropped are together what was made, and every line is whole."""
    handover = Handover(pipe[1], limit_bytes=300_000)
    for number in range(500):
        handover.offer(b"P", f"{number:08}".encode() * 1000, results=1)
    dropped = handover.take_dropped()

    received = b""
    while handover.waiting:
        received += _read_what_is_there(pipe[0])
        handover.flush()
    received += _read_what_is_there(pipe[0])

    lines = received.splitlines()
    numbers = [int(line[1:9]) for line in lines]
    assert all(line == b"P" + f"{number:08}".encode() * 1000 for line, number in zip(lines, numbers, strict=True))
    assert numbers == sorted(numbers)
    assert len(lines) + dropped == 500
    assert numbers[-1] == 499


def test_results_are_dropped_before_metrics(pipe: tuple[int, int]) -> None:
    handover = Handover(pipe[1], limit_bytes=200_000)
    for _ in range(60):
        handover.offer(b"P", b"p" * 40_000, results=1)
        handover.offer(b"M", b"m" * 500)
    received = b""
    while handover.waiting:
        received += _read_what_is_there(pipe[0])
        handover.flush()
    received += _read_what_is_there(pipe[0])

    kinds = [line[:1] for line in received.splitlines()]
    assert kinds.count(b"M") == 60
    assert kinds.count(b"P") < 60


def test_even_metrics_are_bounded(pipe: tuple[int, int]) -> None:
    handover = Handover(pipe[1], limit_bytes=50_000)

    for _ in range(5000):
        handover.offer(b"M", b"m" * 1000)

    assert handover.waiting_bytes <= 50_000
    assert handover.take_dropped() == 0


def test_a_reader_that_is_gone_is_noticed(pipe: tuple[int, int]) -> None:
    handover = Handover(pipe[1])
    os.close(pipe[0])

    with pytest.raises(BrokenPipeError):
        handover.offer(b"M", b"{}")


def test_draining_gives_up_in_time(pipe: tuple[int, int]) -> None:
    handover = Handover(pipe[1])
    for _ in range(60):
        handover.offer(b"P", b"x" * 50_000, results=1)

    handover.drain(0.05)

    assert handover.waiting
