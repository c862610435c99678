"""A VGG16 for images of CIFAR-10's size, pruned from 50 to 90 %, then quantized: bytes, zipped bytes, accuracy.

CIFAR-10 can't be had offline and twenty times its training doesn't fit into minutes on two cores: the network is the
published one, the images are MNIST's, padded to 32x32x3.
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING

from tflotilla.host.models import evaluate
from tflotilla.host.models.compression import pruning
from tflotilla.host.models.compression.schedule import ScheduleOptions
from tflotilla.host.models.compression.training import TrainingOptions
from tflotilla.host.reproductions import making, mnist
from tflotilla.host.reproductions.reproduction import Reproduction, Row
from tflotilla.shared.contract.tensors import QuantizationScheme

if TYPE_CHECKING:
    from pathlib import Path

    from tflotilla.host.reproductions.desk import Desk

TITLE = "VGG16 for 32x32 images, pruned 50 → 90 %, then quantized"
NEEDS = "MNIST's four idx files"
MINUTES = 10
_TRAIN, _TEST = 3000, 1000
_EPOCHS, _PRUNING_EPOCHS = 4, 4
_SPARSITY = 0.9
_LEAST_ZIPPED_RATIO = 4.5
_LEAST_RATIO = 18.0
_MOST_LOST = 0.01


def run(desk: Desk) -> Reproduction:
    """Do the case."""
    train, test = mnist.coloured(desk, "train", _TRAIN), mnist.coloured(desk, "test", _TEST)
    source = mnist.trained(desk, "vgg16", epochs=_EPOCHS, data=train)
    pruned = desk.made("vgg16-pruned.keras")
    report = pruning.prune(
        pruning.PruningRequest(
            source=source,
            output=pruned,
            data=train,
            validation=test,
            preprocess="unit",
            schedule=ScheduleOptions(initial_sparsity=0.5, final_sparsity=_SPARSITY),
            training=TrainingOptions(epochs=_PRUNING_EPOCHS, batch_size=64),
            schemes=(),
            runtimes=(making.LITERT,),
        ),
        desk.say,
    )
    made = making.files(desk, pruned, making.schemes("float32", "dynamic_range"))
    floating, small = made[QuantizationScheme.FLOAT32], made[QuantizationScheme.DYNAMIC_RANGE]
    judged = evaluate.evaluate(
        evaluate.EvaluationRequest(models=(floating, small), data=test, preprocess="unit", runtimes=(making.LITERT,)),
        desk.say,
    )
    before, after = report.before.accuracy or 0.0, judged.scores[1].value
    raw, zipped, quantized = floating.stat().st_size, _zipped(floating), _zipped(small)
    return Reproduction(
        name="vgg16-pruned",
        title=TITLE,
        rows=(
            Row(what="float32, raw", published="56.45 MB", ours=_mebibytes(raw)),
            Row(what="pruned, zipped", published="11.44 MB", ours=_mebibytes(zipped)),
            Row(
                what="raw ÷ pruned and zipped",
                published="4.9×",
                ours=f"{raw / zipped:.1f}×",
                holds=raw / zipped >= _LEAST_ZIPPED_RATIO,
            ),
            Row(what="pruned, weights in int8, zipped", published="2.64 MB", ours=_mebibytes(quantized)),
            Row(
                what="raw ÷ pruned, quantized and zipped",
                published="21×",
                ours=f"{raw / quantized:.1f}×",
                holds=raw / quantized >= _LEAST_RATIO,
            ),
            Row(
                what="accuracy, before → pruned and quantized",
                published="78.17 % → 78.15 %",
                ours=f"{before:.2%} → {after:.2%}",
                holds=before - after <= _MOST_LOST,
            ),
        ),
        remarks=(
            f"The network is VGG16 at CIFAR-10's size ({report.parameters:,} weights); it is trained on {_TRAIN:,} "
            f"images of MNIST, padded to 32x32x3, and judged on {_TEST:,} others: CIFAR-10 can't be had offline.",
            "The accuracies compare with each other, not with the published ones. Sizes are in MiB, as published.",
            *report.findings,
        ),
    )


def _zipped(path: Path) -> int:
    return len(zlib.compress(path.read_bytes(), 9))


def _mebibytes(size_bytes: int) -> str:
    return f"{size_bytes / (1 << 20):.2f} MiB"
