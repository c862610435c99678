"""SHA-256 as names: one canonical form."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import pytest

from tflotilla.shared.contract import digest

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("size", [0, 1, (1 << 20) - 1, 1 << 20, (1 << 20) + 1])
def test_a_file_and_its_bytes_have_one_digest(size: int, tmp_path: Path) -> None:
    data = b"x" * size
    (tmp_path / "file").write_bytes(data)

    assert digest.of_file(tmp_path / "file") == digest.of_bytes(data) == hashlib.sha256(data).hexdigest()


def test_a_digest_has_one_canonical_form() -> None:
    assert digest.check("0a" * 32) == "0a" * 32
    for text in ("", "0a" * 31, "0A" * 32, "0a" * 32 + "\n", "0x" + "0a" * 31, "zz" * 32):
        with pytest.raises(ValueError, match="is not a SHA-256 digest"):
            digest.check(text)


def test_people_read_twelve_digits() -> None:
    assert digest.short("0123456789abcdef" * 4) == "0123456789ab"
