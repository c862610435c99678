"""Weight clustering by tfmot: every tensor of weights gets a few values that it shares, and is trained with them.

Runs in the training child. What it does NOT do: Keras 3 (`rebuild` makes Keras 2 of it).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from tflotilla.host.models.child import report_progress
from tflotilla.host.models.compression import keras_files, rebuild, tfmot_pruning, training
from tflotilla.host.models.compression.keras_files import KERAS_2, KerasModel
from tflotilla.host.models.compression.procedures import AFTER, BEFORE, Procedure, choose_kernels
from tflotilla.shared.contract import codec
from tflotilla.shared.contract.errors import ConversionError, ModelError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tflotilla.host.models.compression.keras_files import Kernel

#: `--init` → tfmot's name.
INITIALIZATIONS = {
    "kmeans++": "KMEANS_PLUS_PLUS",
    "linear": "LINEAR",
    "density": "DENSITY_BASED",
    "random": "RANDOM",
}
#: Recurrent layers need their cells clustered, attention its parts: not by tfmot's registry in all versions.
_CLUSTERED = ("Dense", "Conv1D", "Conv2D", "Conv3D", "Conv2DTranspose", "SeparableConv2D", "Embedding")


class TfmotClustering:
    """An engine of `training`."""

    def __init__(self, model: Any, kernels: Sequence[Kernel], clusters: int, init: str) -> None:  # noqa: ANN401
        """Wrap the layers.

        Raises:
            ConversionError: tfmot can't; says why.

        """
        import tensorflow_model_optimization as tfmot
        import tf_keras

        self._tfmot = tfmot.clustering.keras
        options = {
            "number_of_clusters": clusters,
            "cluster_centroids_init": getattr(self._tfmot.CentroidInitialization, INITIALIZATIONS[init]),
        }
        chosen = {id(kernel.layer) for kernel in kernels}

        def wrap(layer: Any) -> Any:  # noqa: ANN401 - Keras has no types
            if isinstance(layer, tf_keras.Model):
                return tf_keras.models.clone_model(layer, clone_function=wrap)
            return self._tfmot.cluster_weights(layer, **options) if id(layer) in chosen else layer

        try:
            self.model = tf_keras.models.clone_model(model, clone_function=wrap)
        except (ValueError, TypeError, AttributeError, RuntimeError) as error:
            raise ConversionError(f"tfmot can't cluster it: {' '.join(str(error).split())[:200]}") from error

    def before_batch(self, step: int) -> None:
        """Do nothing: the wrappers look up their centroids in every forward pass."""

    def after_batch(self) -> None:
        """Do nothing."""

    def end_epoch(self) -> None:
        """Do nothing."""

    def variables(self) -> Sequence[Any]:
        """Return nothing: centroids and indices are the wrapped model's own variables."""
        return ()

    def scalars(self, step: int) -> Mapping[str, float]:
        """Return nothing beside loss and accuracy."""
        del step
        return {}

    def finish(self) -> Any:  # noqa: ANN401 - Keras has no types
        """Return the model without wrappers, its weights set to their centroids."""
        return self._tfmot.strip_clustering(self.model)


def cluster_here(**arguments: Any) -> dict[str, Any]:  # noqa: ANN401 - JSON
    """Cluster in this process; `clustering.cluster` calls it in a child."""
    work = Procedure(**arguments)
    read = work.read()
    made = rebuild.to_keras_2(read)
    work.notes += made.notes[len(read.notes) :]
    clusters = int(work.settings["clusters"])
    found = [kernel for kernel in keras_files.kernels(made.model) if type(kernel.layer).__name__ in _CLUSTERED]
    chosen = choose_kernels(made, found, work.settings, where=str(work.source), doing="clustered")
    small = [kernel for kernel in chosen if kernel.values().size <= clusters]
    if small:
        names = ", ".join(kernel.path for kernel in small)
        work.notes.append(f"left as they are, having no more than {clusters} weights: {names}")
    chosen = tuple(kernel for kernel in chosen if kernel not in small)
    if not chosen:
        raise ModelError(f"{work.source}: no chosen layer has more than {clusters} weights; give fewer --clusters")
    work.open(made)
    work.save(made, BEFORE)
    # tfmot leaves variables behind whose names occur twice, and such a model can't be saved as .h5.
    fresh = made.keras.models.clone_model(made.model)
    engine = TfmotClustering(made.model, chosen, clusters, work.settings["init"])
    keras_files.copy_weights(work.train_with(engine, made), fresh)
    stripped = KerasModel(model=fresh, library=KERAS_2, notes=())
    report_progress("judging the clustered model")
    after = training.judge(stripped.model, work.validation, work.task)
    work.save(stripped, AFTER)
    work.write_arrays()
    paths = {(kernel.path, kernel.name) for kernel in chosen}
    return work.answer(
        keras=f"{made.library} {made.keras.__version__}",
        engine=tfmot_pruning.name(),
        after=codec.encode(after),
        layers=[
            _layer(kernel, clusters if (kernel.path, kernel.name) in paths else None)
            for kernel in keras_files.kernels(stripped.model)
        ],
    )


def _layer(kernel: Kernel, asked: int | None) -> dict[str, Any]:
    weights = kernel.values()
    return {
        "layer": kernel.path,
        "weight": kernel.name,
        "kind": type(kernel.layer).__name__,
        "weights": int(weights.size),
        "asked": asked,
        "values": len(np.unique(weights)),
    }
