"""Which weights of a tensor stay: pure functions from weights to masks of ones and zeros.

Magnitude: the k greatest stay, k = max(1, round(n (1 - sparsity))), as tfmot counts; of equal ones the first.
N:M: of every M neighbours along the channels that are summed up, the N greatest stay (as sparse tensor cores take it:
A. Mishra et al., "Accelerating Sparse Deep Neural Networks", 2021).
1x4: four neighbours stay or go together, by their mean magnitude: the blocks of TFLite's sparse fully connected kernel.
What it does NOT do: know layers or training.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tflotilla.shared.contract.errors import UsageError

if TYPE_CHECKING:
    from numpy.typing import NDArray

_PATTERN = re.compile(r"(\d+):(\d+)")
_LONGEST_GROUP = 64
_BLOCK_TEXT = "1x4"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pattern:
    """N:M: at most `kept` non-zero among `group` neighbours; `kept` of None: all of a group or none, as blocks."""

    kept: int | None
    group: int

    @property
    def blocks(self) -> bool:
        """Whether a schedule says how many blocks go; N:M says itself how many weights do."""
        return self.kept is None

    @property
    def sparsity(self) -> float | None:
        """The share of zeros in a whole group; None for blocks."""
        return None if self.kept is None else 1 - self.kept / self.group

    def __str__(self) -> str:
        """Return it as people write it."""
        return f"1x{self.group}" if self.kept is None else f"{self.kept}:{self.group}"


def parse_pattern(text: str) -> Pattern:
    """Read `--pattern`, like 2:4 or 1x4. Raises UsageError."""
    if text.strip() == _BLOCK_TEXT:
        return Pattern(kept=None, group=4)
    found = _PATTERN.fullmatch(text.strip())
    kept, group = (int(number) for number in found.groups()) if found else (0, 0)
    if not 0 < kept < group <= _LONGEST_GROUP:
        raise UsageError(
            f"--pattern {text!r}: expected N:M, N weights kept of every M, with N below M, like 2:4 (M up to "
            f"{_LONGEST_GROUP}); or {_BLOCK_TEXT}: blocks"
        )
    return Pattern(kept=kept, group=group)


def magnitude_mask(weights: NDArray[Any], sparsity: float) -> NDArray[np.bool_]:
    """Return a mask of the shape of `weights` with the greatest magnitudes kept; 0 ≤ sparsity < 1."""
    return _greatest(np.abs(weights).ravel(), sparsity).reshape(weights.shape)


def block_mask(weights: NDArray[Any], sparsity: float, pattern: Pattern, axis: int) -> NDArray[np.bool_]:
    """Return a mask in which blocks along `axis`, whose length is a multiple of theirs, stay or go whole."""
    moved = np.moveaxis(np.abs(weights), axis, -1)
    blocks = moved.reshape(-1, pattern.group)
    mask = np.repeat(_greatest(blocks.mean(axis=-1), sparsity), pattern.group).reshape(moved.shape)
    return np.ascontiguousarray(np.moveaxis(mask, -1, axis))


def _greatest(flat: NDArray[Any], sparsity: float) -> NDArray[np.bool_]:
    # In float32 and rounding half to even, as tfmot: at some sizes that is one weight more or less.
    share = np.float32(flat.size) * (np.float32(1) - np.float32(sparsity))
    kept = max(1, int(np.round(share)))
    mask = np.zeros(flat.size, dtype=bool)
    mask[np.argsort(-flat, kind="stable")[:kept]] = True
    return mask


def pattern_mask(weights: NDArray[Any], pattern: Pattern, axis: int) -> NDArray[np.bool_]:
    """Return an N:M mask of the shape of `weights`, groups along `axis`; a last group that is not full is filled up.

    `pattern` is not one of blocks.

    With no more than N neighbours nothing can be removed: a convolution of one channel stays dense.
    """
    moved = np.moveaxis(np.abs(weights), axis, -1)
    length = moved.shape[-1]
    groups = -(-length // pattern.group)
    # Below every magnitude: what fills up is never among the kept before a weight is.
    padded = np.full((*moved.shape[:-1], groups * pattern.group), -1.0)
    padded[..., :length] = moved
    blocks = padded.reshape(-1, pattern.group)
    mask = np.zeros(blocks.shape, dtype=bool)
    best = np.argsort(-blocks, axis=-1, kind="stable")[:, : pattern.kept]
    np.put_along_axis(mask, best, values=True, axis=-1)
    kept = mask.reshape(padded.shape)[..., :length]
    return np.ascontiguousarray(np.moveaxis(kept, -1, axis))


def obeys(weights: NDArray[Any], pattern: Pattern, axis: int) -> bool:
    """Whether every group has at most N weights that are not zero; of blocks, all weights or none."""
    moved = np.moveaxis(weights, axis, -1)
    short = -moved.shape[-1] % pattern.group
    filled = np.concatenate([moved, np.zeros((*moved.shape[:-1], short), moved.dtype)], axis=-1)
    counts = np.count_nonzero(filled.reshape(-1, pattern.group), axis=-1)
    if pattern.kept is not None:
        return bool((counts <= pattern.kept).all())
    # A weight that happens to be zero is as good in a block that stays: what counts is the share of empty blocks.
    return bool(np.mean(counts == 0) >= np.mean(filled == 0) - 1 / pattern.group / max(1, counts.size))


def zeros(weights: NDArray[Any]) -> int:
    """Return how many weights are zero."""
    return int(weights.size - np.count_nonzero(weights))
