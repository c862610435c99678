"""A CNN of 3.3 million weights on MNIST, nine tenths of them pruned away while it is fine-tuned."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING

from tflotilla.host.models.compression import pruning
from tflotilla.host.models.compression.schedule import ScheduleOptions
from tflotilla.host.models.compression.training import TrainingOptions
from tflotilla.host.reproductions import making, mnist
from tflotilla.host.reproductions.reproduction import Reproduction, Row, megabytes

if TYPE_CHECKING:
    from tflotilla.host.reproductions.desk import Desk

TITLE = "MNIST CNN of 3.3 million weights, 90 % pruned"
NEEDS = "MNIST's four idx files"
MINUTES = 12
_EPOCHS, _PRUNING_EPOCHS = 2, 2
_SPARSITY = 0.9
_LEAST_ACCURACY = 0.989


def run(desk: Desk) -> Reproduction:
    """Do the case."""
    source = mnist.trained(desk, "tutorial", epochs=_EPOCHS)
    pruned = desk.made("mnist-tutorial-pruned.h5")
    report = pruning.prune(
        pruning.PruningRequest(
            source=source,
            output=pruned,
            data=mnist.arrays(desk, "train"),
            validation=mnist.arrays(desk, "test"),
            preprocess="unit",
            schedule=ScheduleOptions(initial_sparsity=0.5, final_sparsity=_SPARSITY),
            training=TrainingOptions(epochs=_PRUNING_EPOCHS, batch_size=128),
            schemes=(),
            runtimes=(making.LITERT,),
        ),
        desk.say,
    )
    before, after = report.before.accuracy or 0.0, report.after.accuracy or 0.0
    weights = [layer for layer in report.layers if layer.asked is not None]
    sparsity = sum(layer.zeros for layer in weights) / sum(layer.weights for layer in weights)
    zipped = len(zlib.compress(pruned.read_bytes(), 9))
    return Reproduction(
        name="mnist-pruned",
        title=TITLE,
        rows=(
            Row(what="weights", published="3.3 million", ours=f"{report.parameters:,}"),
            Row(what="accuracy before", published="", ours=f"{before:.2%}"),
            Row(what="pruned .h5", published="13 MB", ours=megabytes(pruned.stat().st_size)),
            Row(what="the same, zipped", published="", ours=megabytes(zipped)),
            Row(
                what="zeros among the pruned weights",
                published="90 %",
                ours=f"{sparsity:.1%}",
                holds=sparsity >= _SPARSITY - 0.005,
            ),
            Row(what="accuracy", published="99.0 %", ours=f"{after:.2%}", holds=after >= _LEAST_ACCURACY),
        ),
        remarks=(
            f"{_EPOCHS} epochs of training, {_PRUNING_EPOCHS} of pruning, on all 60,000 images; {report.engine}.",
            *report.findings,
        ),
    )
