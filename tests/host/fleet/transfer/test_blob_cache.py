"""The cache of pushed files: verified, bounded, and never in anybody's way."""

from __future__ import annotations

import io
import os
from typing import TYPE_CHECKING

from tflotilla.host.fleet.transfer.blob_cache import BlobCache
from tflotilla.shared.contract import digest

if TYPE_CHECKING:
    from pathlib import Path


def _kept(cache: BlobCache, data: bytes) -> str:
    sha256 = digest.of_bytes(data)
    cache.keep(sha256, len(data), io.BytesIO(data))
    return sha256


def test_what_was_kept_comes_back(tmp_path: Path) -> None:
    cache = BlobCache(tmp_path / "blobs")
    sha256 = _kept(cache, b"weights")

    assert cache.has(sha256)
    assert cache.read(sha256) == b"weights"
    assert [entry.name for entry in (tmp_path / "blobs").iterdir()] == [sha256]


def test_a_damaged_file_is_no_file_and_goes(tmp_path: Path) -> None:
    cache = BlobCache(tmp_path)
    sha256 = _kept(cache, b"weights")
    (tmp_path / sha256).write_bytes(b"Weights")

    assert cache.read(sha256) is None
    assert not cache.has(sha256)


def test_the_longest_unused_go_when_there_is_no_room(tmp_path: Path) -> None:
    cache = BlobCache(tmp_path, limit_bytes=100)
    old, older = _kept(cache, b"a" * 40), _kept(cache, b"b" * 40)
    os.utime(tmp_path / old, ns=(2, 2))
    os.utime(tmp_path / older, ns=(1, 1))
    new = _kept(cache, b"c" * 40)

    assert [cache.has(sha256) for sha256 in (older, old, new)] == [False, True, True]


def test_what_would_fill_half_of_it_is_not_kept(tmp_path: Path) -> None:
    cache = BlobCache(tmp_path, limit_bytes=100)

    assert not cache.has(_kept(cache, b"a" * 51))


def test_a_cache_that_cannot_be_written_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "blobs").write_text("a file in the way")
    cache = BlobCache(tmp_path / "blobs")
    sha256 = _kept(cache, b"weights")

    assert not cache.has(sha256)
    assert cache.read(sha256) is None
