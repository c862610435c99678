"""ONNX files: recognized by content, and refused with advice while their tool is not there."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import pytest

from tflotilla.host.models import sources
from tflotilla.host.models.sources import SourceOptions, onnx_graph
from tflotilla.host.packages import tools
from tflotilla.shared.contract.errors import ModelError
from tflotilla.shared.contract.tensors import TensorSpec

if TYPE_CHECKING:
    from pathlib import Path

#: ModelProto: ir_version 8, opset_import (domain "", version 17), as every exporter begins.
HEAD = bytes([0x08, 0x08, 0x12, 0x07]) + b"pytorch"


def test_an_onnx_file_is_known_by_how_it_begins(tmp_path: Path) -> None:
    named, unnamed, other = tmp_path / "a.onnx", tmp_path / "b.bin", tmp_path / "c.onnx"
    named.write_bytes(HEAD)
    unnamed.write_bytes(HEAD)
    other.write_bytes(b"<html>")

    assert [sources.detect(named), sources.detect(unnamed)] == ["ONNX", "ONNX"]
    with pytest.raises(ModelError, match="web page"):
        sources.detect(other)


def test_without_the_tool_the_advice_is_a_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(tools.VARIABLE, str(tmp_path))
    model = tmp_path / "m.onnx"
    model.write_bytes(HEAD)

    with pytest.raises(ModelError, match="`tflotilla tools install onnx` does it"):
        onnx_graph.load(model, SourceOptions())


def test_answers_are_compared_in_whichever_layout_fits() -> None:
    rng = np.random.default_rng(0)
    first = rng.random((1, 3, 4, 5))

    assert onnx_graph._sqnr_db(first, np.moveaxis(first, 1, -1)) == 200.0
    assert onnx_graph._sqnr_db(first, first[:, :2]) == -math.inf
    assert onnx_graph._sqnr_db(first, first * 0.9) == pytest.approx(20.0)


def test_what_was_fed_channels_first_is_fed_channels_last() -> None:
    values = np.arange(24.0, dtype=np.float32).reshape(1, 2, 3, 4)
    spec = TensorSpec(name="image_0", shape=(1, 3, 4, 2), dtype="float32")

    fed = onnx_graph._fed({"input/0/mask": values * 0, "input/0/image.0": values}, 0, spec)

    assert fed.shape == (1, 3, 4, 2)
    assert fed[0, 1, 2, 1] == values[0, 1, 1, 2]
