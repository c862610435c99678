"""What the timed runs are fed with: golden inputs, seeded random ones, or samples that were sent; in batches.

Random inputs stay where real ones are: 8-bit tensors take any value, others lie between the least and the greatest of
the golden inputs (an index beyond a table crashes a kernel), texts are the goldens' own. What it does NOT do: time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from tflotilla.shared.contract.errors import DatasetError, ModelError
from tflotilla.shared.inference.preprocessing import Preprocessor, from_real

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from tflotilla.shared.contract.benchmark import Method
    from tflotilla.shared.contract.manifest import Manifest
    from tflotilla.shared.inference.runtime import Tensor
    from tflotilla.shared.inference.sample_set import SampleSet

    Tensors = tuple[Tensor, ...]

#: All inputs of a rotation together: what is beyond the caches says nothing more.
_BUDGET_BYTES = 64 << 20


def rotation(
    method: Method,
    batch: int,
    *,
    goldens: Sequence[Tensors],
    sample: Callable[[int], Tensors] | None = None,
    sample_count: int = 0,
) -> tuple[Tensors, ...]:
    """Return the inputs that the runs rotate over, each of `batch` samples.

    Args:
        method: says which and how many.
        batch: samples in one invoke.
        goldens: the bundle's golden inputs, at least one.
        sample: gives a sent sample as tensors, see `sample_reader`.
        sample_count: how many of those there are.

    Raises:
        ModelError: samples can't be put together in a batch: their shapes differ.
        DatasetError: a sample can't be used, or there are none.

    """
    row: Callable[[int], Tensors] = lambda number: goldens[number]  # noqa: E731 - the first of three
    count = len(goldens)
    if method.inputs == "random":
        generator = np.random.default_rng(method.seed)
        count, row = method.input_count * batch, lambda _: _random(generator, goldens)
    elif method.inputs == "samples":
        if sample is None or not sample_count:
            message = "the samples that the benchmark names are not on this board; send them first"
            raise DatasetError(message)
        count, row = sample_count, sample
    # As many different ones as there are and as fit, none twice unless a batch needs them.
    first = stack([row(number % count) for number in range(batch)])
    each = max(1, sum(tensor.nbytes for tensor in first))
    wanted = min(method.input_count, max(1, count // batch), max(1, _BUDGET_BYTES // each))
    rest = [stack([row((number * batch + i) % count) for i in range(batch)]) for number in range(1, wanted)]
    return (first, *rest)


def stack(rows: Sequence[Tensors]) -> Tensors:
    """Put samples together along their first dimension. Raises ModelError."""
    if len(rows) == 1:
        return rows[0]
    try:
        return tuple(np.concatenate(tensors) for tensors in zip(*rows, strict=True))
    except ValueError as error:
        message = f"{len(rows)} samples can't be put together in one batch: {error}"
        raise ModelError(message) from error


def sample_reader(samples: SampleSet, manifest: Manifest) -> Callable[[int], Tensors]:
    """Return what turns the sample of a number into the model's inputs, as the worker would.

    Raises:
        DatasetError: the samples are images and the model takes none.

    """
    specs = manifest.inputs
    if samples.images:
        if manifest.preprocessing is None or len(specs) != 1:
            message = f"the samples are images, and {manifest.title} takes none"
            raise DatasetError(message)
        from tflotilla.shared.inference.images import open_image

        preprocessor = Preprocessor(manifest.preprocessing, specs[0])

        def from_image(number: int) -> Tensors:
            image = open_image(samples.images[number], draft_size=preprocessor.draft_size)
            return (preprocessor.prepare(image),)

        return from_image

    def from_tensors(number: int) -> Tensors:
        tensors = samples.tensors[number]
        if len(tensors) != len(specs):
            message = f"sample {number} has {len(tensors)} tensors, {manifest.title} takes {len(specs)}"
            raise DatasetError(message)
        return tuple(from_real(tensor, spec) for tensor, spec in zip(tensors, specs, strict=True))

    return from_tensors


def _random(generator: np.random.Generator, goldens: Sequence[Tensors]) -> Tensors:
    return tuple(_random_like(generator, [row[column] for row in goldens]) for column in range(len(goldens[0])))


def _random_like(generator: np.random.Generator, like: Sequence[NDArray[Any]]) -> NDArray[Any]:
    shape, dtype = like[0].shape, like[0].dtype
    if dtype.kind not in "iufb" or not like[0].size:
        return like[0]
    if dtype.kind == "b":
        return generator.integers(0, 2, shape).astype(dtype)
    if dtype.kind in "iu" and dtype.itemsize == 1:
        limits = np.iinfo(dtype)
        return generator.integers(limits.min, limits.max, shape, dtype=dtype, endpoint=True)
    finite = [tensor[np.isfinite(tensor)] for tensor in like]
    least = min((tensor.min() for tensor in finite if tensor.size), default=0)
    most = max((tensor.max() for tensor in finite if tensor.size), default=1)
    if dtype.kind in "iu":
        return generator.integers(int(least), int(most), shape, dtype=dtype, endpoint=True)
    return (float(least) + generator.random(shape) * (float(most) - float(least))).astype(dtype)
