"""Files measured side by side on one runtime."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests import models_made
from tflotilla.host.models import latency
from tflotilla.shared.contract.errors import BoardError, ModelError

if TYPE_CHECKING:
    from pathlib import Path


def test_every_file_is_run_as_often_as_asked(tmp_path: Path) -> None:
    first, second = tmp_path / "a.tflite", tmp_path / "b.tflite"
    first.write_bytes(models_made.read("tiny_classifier"))
    second.write_bytes(models_made.read("tiny_classifier"))

    found = latency.compare([first, second], "ai-edge-litert", runs=40)

    assert [40, 40] == [each.invoke.count for each in found]
    assert all(0 < each.invoke.p50_ns <= each.invoke.max_ns for each in found)
    assert {"ai-edge-litert"} == {each.runtime.split("==")[0] for each in found}


def test_a_file_that_takes_long_stops_at_the_time_but_not_before_a_median_is_sure(tmp_path: Path) -> None:
    file = tmp_path / "a.tflite"
    file.write_bytes(models_made.read("tiny_classifier"))

    (found,) = latency.compare([file], "ai-edge-litert", runs=100_000_000, seconds=0.0)

    assert 11 <= found.invoke.count <= 20


def test_what_can_not_run_says_so(tmp_path: Path) -> None:
    file = tmp_path / "a.tflite"
    file.write_bytes(models_made.read("op_version_too_high"))

    with pytest.raises(ModelError):
        latency.compare([file], "ai-edge-litert", runs=20)
    with pytest.raises(BoardError):
        latency.compare([file], "no-such-runtime", runs=20)
