"""Magnitude pruning without wrappers: masks beside the model, laid on after every batch. For both Keras.

Before a batch whose step the schedule names, masks are chosen anew from the weights; after every batch the weights are
multiplied by them, so what was removed stays zero until the next choice. Masks are part of a checkpoint.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from tflotilla.host.models.compression import masks
from tflotilla.host.models.compression.keras_files import raw

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from tflotilla.host.models.compression.keras_files import Kernel
    from tflotilla.host.models.compression.masks import Pattern
    from tflotilla.host.models.compression.schedule import Schedule

NAME = "tflotilla's own masks"
_DENSE_RANK = 2


def asked_sparsity(schedule: Schedule, pattern: Pattern | None, step: int) -> float:
    """Return what the schedule, or N:M, asks for at a step."""
    if step < schedule.begin_step:
        return 0.0
    fixed = None if pattern is None else pattern.sparsity
    return schedule.sparsity_at(step) if fixed is None else fixed


def kernel_pattern(kernel: Kernel, pattern: Pattern | None) -> Pattern | None:
    """Return the pattern that a kernel's zeros follow; None where they lie freely.

    Blocks are for dense layers: TFLite has no kernel that gains from them in a convolution.
    """
    if pattern is None or kernel.axis is None:
        return None
    shape = tuple(kernel.variable.shape)
    if pattern.blocks and (len(shape) != _DENSE_RANK or shape[kernel.axis] % pattern.group):
        return None
    return pattern


class OwnPruning:
    """An engine of `training`; the model that trains is the model that was given."""

    def __init__(
        self,
        model: Any,  # noqa: ANN401 - Keras has no types
        kernels: Sequence[Kernel],
        schedule: Schedule,
        pattern: Pattern | None,
    ) -> None:
        import tensorflow as tf

        self.model = model
        self._kernels = tuple(kernels)
        self._schedule = schedule
        self._pattern = pattern
        self._weights = [raw(kernel.variable) for kernel in kernels]
        self._masks = [tf.Variable(tf.ones_like(weight), trainable=False) for weight in self._weights]
        self._lay_on = tf.function(self._multiply)

    def before_batch(self, step: int) -> None:
        """Choose the masks anew when it is time."""
        # Which of N:M stay is decided once: nothing is left that a later choice could add.
        once = self._pattern is not None and not self._pattern.blocks
        if step == max(1, self._schedule.begin_step) if once else self._schedule.updates_at(step):
            sparsity = self._schedule.sparsity_at(step)
            for kernel, weight, mask in zip(self._kernels, self._weights, self._masks, strict=True):
                mask.assign(self._choose(kernel, weight.numpy(), sparsity).astype(weight.dtype.as_numpy_dtype))
            self._lay_on()

    def after_batch(self) -> None:
        """Set back to zero what the optimizer moved."""
        self._lay_on()

    def end_epoch(self) -> None:
        """Do nothing: the masks lie on already."""

    def variables(self) -> Sequence[Any]:
        """Return what a checkpoint holds beside the model's own variables."""
        return self._masks

    def scalars(self, step: int) -> Mapping[str, float]:
        """Return what the logs show."""
        reached = {
            f"sparsity/{kernel.path}": float(np.mean(weight.numpy() == 0))
            for kernel, weight in zip(self._kernels, self._weights, strict=True)
        }
        return reached | {"sparsity_asked": asked_sparsity(self._schedule, self._pattern, step)}

    def finish(self) -> Any:  # noqa: ANN401 - Keras has no types
        """Return the model."""
        return self.model

    def _choose(self, kernel: Kernel, weights: NDArray[Any], sparsity: float) -> NDArray[np.bool_]:
        pattern = kernel_pattern(kernel, self._pattern)
        if pattern is None:
            return masks.magnitude_mask(weights, sparsity)
        assert kernel.axis is not None  # noqa: S101 - it has no pattern without
        if pattern.blocks:
            return masks.block_mask(weights, sparsity, pattern, kernel.axis)
        return masks.pattern_mask(weights, pattern, kernel.axis)

    def _multiply(self) -> None:
        for weight, mask in zip(self._weights, self._masks, strict=True):
            weight.assign(weight * mask)
