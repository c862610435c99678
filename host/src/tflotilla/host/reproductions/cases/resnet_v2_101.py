"""ResNet-v2-101 for images of 299 pixels, from a frozen graph: what int8 weights save."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tflotilla.host.reproductions import making, networks
from tflotilla.host.reproductions.reproduction import Reproduction, Row
from tflotilla.shared.contract.tensors import QuantizationScheme

if TYPE_CHECKING:
    from pathlib import Path

    from tflotilla.host.reproductions.desk import Desk

TITLE = "ResNet-v2-101 299: weight quantization of a frozen graph"
NEEDS = ""
MINUTES = 4
_SIDE = 299
_LEAST_RATIO = 3.9


def run(desk: Desk) -> Reproduction:
    """Do the case."""
    written = networks.write(desk, "ResNet101V2", _SIDE)
    small = making.files(desk, written.frozen, making.schemes("dynamic_range"))[QuantizationScheme.DYNAMIC_RANGE]
    ratio = written.frozen.stat().st_size / small.stat().st_size
    return Reproduction(
        name="resnet-v2-101",
        title=TITLE,
        rows=(
            Row(what="frozen graph", published="171 MB", ours=_mebibytes(written.frozen)),
            Row(what="TFLite, weights in int8", published="43 MB", ours=_mebibytes(small)),
            Row(what="size", published="4.0×", ours=f"{ratio:.2f}×", holds=ratio >= _LEAST_RATIO),
        ),
        remarks=(
            f"The weights are random ({written.parameters:,} of them); size is what is compared. Here the publication "
            "counts 2^20 bytes as a MB, and so does this table.",
        ),
    )


def _mebibytes(path: Path) -> str:
    return f"{path.stat().st_size / (1 << 20):.1f} MiB"
