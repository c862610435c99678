"""Files that appear whole or not at all, also on a disk that fills."""

from __future__ import annotations

import resource
from typing import TYPE_CHECKING

import pytest

from tflotilla.host.models import delivery
from tflotilla.shared.contract.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path


def test_what_is_delivered_is_readable_by_everyone(tmp_path: Path) -> None:
    delivery.deliver(b"model", tmp_path / "new" / "m.tflite")
    delivery.deliver("text, ünïcode", tmp_path / "new" / "m.txt")
    delivery.deliver(tmp_path / "new" / "m.tflite", tmp_path / "copy.tflite")

    assert (tmp_path / "copy.tflite").read_bytes() == b"model"
    assert (tmp_path / "new" / "m.txt").read_text(encoding="utf-8") == "text, ünïcode"
    assert (tmp_path / "copy.tflite").stat().st_mode & 0o777 == 0o644


def test_a_file_that_can_not_be_written_whole_leaves_no_part(tmp_path: Path) -> None:
    target = tmp_path / "model.tflite"
    target.write_bytes(b"the old one")

    with pytest.raises(InputError, match=r"model\.tflite can't be written"):
        delivery.deliver(tmp_path / "absent", target)

    assert [entry.name for entry in tmp_path.iterdir()] == ["model.tflite"]
    assert target.read_bytes() == b"the old one"


def test_a_disk_that_fills_leaves_the_old_file_and_no_part(tmp_path: Path) -> None:
    """The limit on a file's size stands in for the disk: the write fails in the middle, as on a full one."""
    target = tmp_path / "model.tflite"
    target.write_bytes(b"the old one")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64 * 1024, hard))
    try:
        with pytest.raises(InputError, match="can't be written: File too large"):
            delivery.deliver(b"x" * 200_000, target)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    assert [entry.name for entry in tmp_path.iterdir()] == ["model.tflite"]
    assert target.read_bytes() == b"the old one"


def test_whether_it_can_be_written_is_known_before(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    delivery.check_writable(tmp_path / "a" / "b" / "c.tflite")
    delivery.check_writable(tmp_path / "file")
    with pytest.raises(InputError, match="is not a folder of yours"):
        delivery.check_writable(tmp_path / "file" / "below.tflite")
