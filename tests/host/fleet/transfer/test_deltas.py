"""Differences between files: whatever they are, the target comes out again; where weights are, little is left."""

from __future__ import annotations

import itertools
import random

import numpy as np
import pytest

from tests import models_made
from tflotilla.host.fleet.transfer import deltas
from tflotilla.shared.contract.session import Piece


def _noise(size: int, seed: int = 0) -> bytes:
    return random.Random(seed).randbytes(size)  # noqa: S311 - bytes that don't compress


def _left(base: bytes, target: bytes) -> int:
    return int(np.count_nonzero(np.frombuffer(deltas.difference(base, target, deltas.pieces(base, target)), np.uint8)))


@pytest.mark.parametrize("seed", range(20))
def test_applying_a_difference_gives_the_target_whatever_the_bytes_are(seed: int) -> None:
    chance = random.Random(seed)  # noqa: S311 - cases, not secrets
    base = _noise(chance.randrange(3000), seed)
    cut, grown = chance.randrange(len(base) + 1), chance.randrange(200)
    target = base[:cut] + _noise(grown, seed + 1) + base[cut + chance.randrange(100) :]

    laid = deltas.pieces(base, target)

    assert deltas.applied(base, deltas.difference(base, target, laid), laid) == target
    assert list(laid) == sorted(laid, key=lambda piece: piece.at)
    assert all(one.at + one.size <= other.at for one, other in itertools.pairwise(laid))
    assert all(piece.base_at + piece.size <= len(base) and piece.at + piece.size <= len(target) for piece in laid)


def test_files_of_equal_length_are_one_piece() -> None:
    base = _noise(5000)
    target = bytes((byte + (at % 50 == 0)) % 256 for at, byte in enumerate(base))

    assert deltas.pieces(base, target) == (Piece(at=0, base_at=0, size=5000),)
    assert _left(base, target) == 100


@pytest.mark.parametrize("size", [-300, 300])
def test_one_place_that_grew_or_shrank_leaves_the_rest_alone(size: int) -> None:
    whole = _noise(8000)
    short = whole[:3000] + whole[3300:]
    base, target = (short, whole) if size > 0 else (whole, short)

    assert _left(base, target) <= max(size, 0)


def test_files_that_have_nothing_in_common_are_hardly_laid_over_each_other() -> None:
    base, target = _noise(4000, 1), _noise(4000, 2)

    assert _left(base, target) > 3900


def test_nothing_is_laid_over_an_empty_file_or_under_one() -> None:
    assert deltas.pieces(b"", b"abc") == ()
    assert deltas.pieces(b"abc", b"") == ()


def test_buffers_of_tflite_files_find_each_other_wherever_they_moved() -> None:
    """Two places grew, so that neither end alone fits: buffers are told by their sizes and order."""
    kept = [_noise(size, size) for size in (3000, 5000, 4000, 2000)]
    base = _model(*kept)
    grown = _model(kept[0], _noise(700, 1), kept[1], kept[2], _noise(900, 2), kept[3])

    assert _left(base, grown) < 700 + 900 + 1000


def _model(*buffers: bytes) -> bytes:
    """Return a model that has these buffers besides its own."""
    from tflotilla.host.models import flatbuffer

    model = flatbuffer.read(models_made.read("tiny_classifier"))
    for data in buffers:
        buffer = flatbuffer.SCHEMA.BufferT()
        buffer.data = np.frombuffer(data, np.uint8)
        model.buffers.append(buffer)
    return flatbuffer.write(model)


@pytest.mark.parametrize("length", [0, 4, 8, 12, 40, 200, 1000])
def test_a_truncated_or_garbled_model_is_only_bytes(length: int) -> None:
    model = models_made.read("tiny_classifier")
    broken = model[:length] + _noise(64)

    laid = deltas.pieces(model, broken)

    assert deltas.applied(model, deltas.difference(model, broken, laid), laid) == broken
