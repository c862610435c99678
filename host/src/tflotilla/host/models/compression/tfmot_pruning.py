"""Magnitude pruning of Keras 2 models by tfmot's wrappers, which are taken off at the end.

What it does NOT do: models that tfmot can't wrap (nested models, layers of its own kind): `own_pruning` does those.
"""

from __future__ import annotations

import importlib
import importlib.metadata
from typing import TYPE_CHECKING, Any

import numpy as np

from tflotilla.host.models.compression.own_pruning import asked_sparsity, kernel_pattern
from tflotilla.shared.contract.errors import ConversionError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tflotilla.host.models.compression.keras_files import Kernel
    from tflotilla.host.models.compression.masks import Pattern
    from tflotilla.host.models.compression.schedule import Schedule

PACKAGE = "tensorflow-model-optimization"
#: tfmot arranges N:M groups for dense layers and for convolutions of pictures alone.
_PATTERN_RANKS = (2, 4)


def name() -> str:
    """Return the engine's name and version."""
    return f"{PACKAGE} {importlib.metadata.version(PACKAGE)}"


class TfmotPruning:
    """An engine of `training`."""

    def __init__(
        self,
        model: Any,  # noqa: ANN401 - Keras has no types
        kernels: Sequence[Kernel],
        schedule: Schedule,
        pattern: Pattern | None,
    ) -> None:
        """Wrap the layers.

        Raises:
            ConversionError: tfmot can't; says why.

        """
        import tensorflow_model_optimization as tfmot
        import tf_keras

        _refuse(kernels, schedule, pattern)
        self._tfmot = tfmot.sparsity.keras
        self._schedule = schedule
        self._pattern = pattern
        options = {kernel.layer.name: self._options(kernel) for kernel in kernels}

        def wrap(layer: Any) -> Any:  # noqa: ANN401 - Keras has no types
            chosen = options.get(layer.name)
            return layer if chosen is None else self._tfmot.prune_low_magnitude(layer, **chosen)

        try:
            self.model = tf_keras.models.clone_model(model, clone_function=wrap)
        except (ValueError, TypeError, AttributeError, RuntimeError) as error:
            raise ConversionError(f"tfmot can't wrap it: {' '.join(str(error).split())[:200]}") from error
        wrapper = importlib.import_module(f"{tfmot.__name__}.python.core.sparsity.keras.pruning_wrapper")
        self._wrapped = [layer for layer in self.model.layers if isinstance(layer, wrapper.PruneLowMagnitude)]
        self._callback = self._tfmot.UpdatePruningStep()
        self._callback.set_model(self.model)
        self._callback.on_train_begin()

    def before_batch(self, step: int) -> None:
        """Do nothing: the wrappers count the batches themselves, in a variable that checkpoints hold."""

    def after_batch(self) -> None:
        """Do nothing: the wrappers lay their masks on before every batch."""

    def end_epoch(self) -> None:
        """Lay the masks on, behind the last batch too."""
        self._callback.on_epoch_end(0)

    def variables(self) -> Sequence[Any]:
        """Return nothing: masks, thresholds and steps are the wrapped model's own variables."""
        return ()

    def scalars(self, step: int) -> Mapping[str, float]:
        """Return what the logs show."""
        reached = {
            f"sparsity/{wrapper.layer.name}": 1 - float(np.mean(np.concatenate([m.numpy().ravel() for m in found])))
            for wrapper in self._wrapped
            if (found := [mask for _, mask, _ in wrapper.pruning_vars])
        }
        return reached | {"sparsity_asked": asked_sparsity(self._schedule, self._pattern, step)}

    def finish(self) -> Any:  # noqa: ANN401 - Keras has no types
        """Return the model without wrappers."""
        return self._tfmot.strip_pruning(self.model)

    def _options(self, kernel: Kernel) -> dict[str, Any]:
        options: dict[str, Any] = {"pruning_schedule": self._tfmot_schedule()}
        pattern = kernel_pattern(kernel, self._pattern)
        if pattern is not None and pattern.kept is not None:
            # tfmot counts the zeros, everybody else what stays.
            options["sparsity_m_by_n"] = (pattern.group - pattern.kept, pattern.group)
        elif pattern is not None:
            options |= {"block_size": [pattern.group, 1], "block_pooling_type": "AVG"}
        return options

    def _tfmot_schedule(self) -> Any:  # noqa: ANN401 - tfmot has no types
        ours = self._schedule
        steps = {"begin_step": ours.begin_step, "end_step": ours.end_step, "frequency": ours.frequency}
        if ours.kind == "constant":
            return self._tfmot.ConstantSparsity(ours.final_sparsity, **steps)
        if ours.begin_step == ours.end_step:
            # One update, and a slope of no length: 0 / 0.
            return self._tfmot.ConstantSparsity(ours.final_sparsity, **steps)
        return self._tfmot.PolynomialDecay(ours.initial_sparsity, ours.final_sparsity, power=ours.power, **steps)


def _refuse(kernels: Sequence[Kernel], schedule: Schedule, pattern: Pattern | None) -> None:
    from tensorflow_model_optimization.python.core.sparsity.keras import prune_registry

    for kernel in kernels:
        if "/" in kernel.path:
            raise ConversionError(f"tfmot can't reach into a nested layer, {kernel.path.rsplit('/', 1)[0]!r}")
        if not prune_registry.PruneRegistry.supports(kernel.layer):
            raise ConversionError(f"tfmot can't wrap layer {kernel.path!r} ({type(kernel.layer).__name__})")
        if pattern is not None and not pattern.blocks and len(kernel.variable.shape) not in _PATTERN_RANKS:
            raise ConversionError(f"tfmot has no N:M for layer {kernel.path!r} ({type(kernel.layer).__name__})")
    if pattern is not None and not pattern.blocks and schedule.begin_step > 1:
        raise ConversionError("tfmot chooses N:M masks at step 1 only")
