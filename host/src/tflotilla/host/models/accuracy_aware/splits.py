"""Splits labelled data in two: one half to search on, one to prove on.

Whoever searches and proves on the same samples finds luck among the variants. Rules it keeps: every class goes half to
each side; the same data are split the same way everywhere. What it does NOT do: copy images; the halves name them.
"""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING

import numpy as np

from tflotilla.host.models import datasets

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from tflotilla.host.models.datasets import LabelledData

_SEED = 20240229
HALVES = ("search", "proof")


def halves(labels: Sequence[int]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the places of the samples of either half, ascending: of each class half to each, odd ones by turns."""
    generator = np.random.Generator(np.random.PCG64(_SEED))
    sides: tuple[list[int], list[int]] = ([], [])
    turn = 0
    for label in sorted(set(labels)):
        places = generator.permutation([place for place, own in enumerate(labels) if own == label])
        for place in places:
            sides[turn].append(int(place))
            turn = 1 - turn
    return tuple(sorted(sides[0])), tuple(sorted(sides[1]))


def write(data: LabelledData, places: Sequence[int], folder: Path, name: str) -> Path:
    """Write some of the samples as data that `evaluate` reads: an .npz, or a folder with a table. Return its path."""
    labels = [data.labels[place] for place in places]
    if data.array is not None:
        path = folder / f"{name}.npz"
        np.savez(path, x=data.array[list(places)], y=np.array(labels, dtype=np.int64))
        return path
    path = folder / name
    path.mkdir()
    with (path / datasets.TABLE).open("w", newline="", encoding="utf-8") as stream:
        rows = csv.writer(stream)
        rows.writerow(("file", "index"))
        rows.writerows((data.files[place].absolute(), label) for place, label in zip(places, labels, strict=True))
    return path
