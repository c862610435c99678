"""Inputs made up from a seed: for benchmarks, and for boards whose camera is not there yet.

A handful of tensors is made once and handed out in turn, so that making inputs costs an inference nothing.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import numpy as np

from tflotilla.device.sources import Item
from tflotilla.shared.contract.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from tflotilla.shared.contract.agent_config import SourceConfig
    from tflotilla.shared.contract.tensors import TensorSpec

_VARIETY = 4


def open_source(config: SourceConfig, inputs: tuple[TensorSpec, ...]) -> SyntheticSource:
    """Make the inputs. Raises ConfigError when the model takes something that has no random values."""
    generator = np.random.default_rng(config.seed)
    return SyntheticSource(
        tuple(
            Item(name=f"synthetic-{number}", tensors=tuple(random_tensor(spec, generator) for spec in inputs))
            for number in range(_VARIETY)
        )
    )


class SyntheticSource:
    """An endless circle of prepared items."""

    gives_images = False

    def __init__(self, items: tuple[Item, ...]) -> None:
        self._items: Iterator[Item] = itertools.cycle(items)

    def next_item(self) -> Item:
        """Return the next; there always is one."""
        return next(self._items)

    def close(self) -> None:
        """Nothing is held."""


def random_tensor(spec: TensorSpec, generator: np.random.Generator) -> NDArray[Any]:
    """Return random values over the whole range of an integer type, or of 0..1; a dynamic dimension becomes 1.

    Raises:
        ConfigError: the input is text.

    """
    if spec.dtype == "string":
        message = f"source.kind 'synthetic' can't make up text for the model's input {spec.name!r}"
        raise ConfigError(message)
    shape = tuple(max(1, size) for size in spec.shape)
    kind = np.dtype(spec.dtype)
    if kind.kind in "iu":
        limits = np.iinfo(kind)
        # Wide integers are indices or counts far more often than pixels: large ones crash models that look up.
        top = limits.max if kind.itemsize <= np.dtype("int16").itemsize else 1
        bottom = limits.min if kind.itemsize <= np.dtype("int16").itemsize else 0
        return generator.integers(bottom, top, size=shape, dtype=kind, endpoint=True)
    if kind.kind == "b":
        return generator.integers(0, 1, size=shape, endpoint=True).astype(kind)
    return generator.random(shape).astype(kind)
