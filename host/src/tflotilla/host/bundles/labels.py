"""Read a file of labels and fit it to a model's classes.

One label a line, in the order of the classes. `0 cardboard` (Teachable Machine, Coral) numbers them; numbers may skip.
A model with a background class in front takes 1001 labels or the 1000 without it. What it does NOT do: guess further;
labels that don't fit the outputs would put wrong names on right answers for ever.
"""

from __future__ import annotations

import itertools
import re
from typing import TYPE_CHECKING

from tflotilla.shared.contract.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

#: Names that others gave the class in front of the real ones.
_BACKGROUND = ("background", "dummy", "_background_")
_NUMBERED = re.compile(r"(\d+)[\s:,]+(\S.*)")
_GAP = "???"
_MOST = 100_000


def read(path: Path) -> tuple[str, ...]:
    """Return the labels of a file in the order of the classes.

    Raises:
        InputError: it can't be read, is empty, or is no text.

    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not a text file of labels, one a line, in UTF-8") from error
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from error
    lines = [line.strip() for line in text.splitlines()]
    while lines and not lines[-1]:
        lines.pop()
    if not lines:
        raise InputError(f"{path}: holds no label; write one a line")
    if any(not character.isprintable() for line in lines for character in line):
        raise InputError(f"{path}: holds control characters; write one label a line")
    if len(lines) > _MOST:
        raise InputError(f"{path}: holds {len(lines)} lines; that is no list of labels")
    return _unnumbered(lines)


def fit(labels: Sequence[str], classes: int, *, where: Path, note: Callable[[str], None]) -> tuple[str, ...]:
    """Return as many labels as the model has classes.

    Raises:
        InputError: the numbers differ, by more than a background class.

    """
    if len(labels) == classes:
        return tuple(labels)
    if len(labels) + 1 == classes and labels[0].lower() not in _BACKGROUND and classes == 1001:  # noqa: PLR2004 - ImageNet's
        note(f"the model has {classes} classes and {where} {len(labels)} labels: class 0 is taken to be the background")
        return ("background", *labels)
    if len(labels) - 1 == classes and labels[0].lower() in _BACKGROUND:
        note(f"the model has {classes} classes: the first label, {labels[0]!r}, is left out")
        return tuple(labels[1:])
    raise InputError(f"{where}: holds {len(labels)} labels, the model has {classes} classes")


def _unnumbered(lines: Sequence[str]) -> tuple[str, ...]:
    """Take the numbers away where every line has one and they rise; gaps get a label that says nothing."""
    found = [_NUMBERED.fullmatch(line) for line in lines]
    numbers = [int(match[1]) for match in found if match]
    rising = all(b > a for a, b in itertools.pairwise(numbers))
    if len(numbers) < len(lines) or not rising or numbers[0] > 1 or numbers[-1] >= 2 * len(numbers) + 2:
        return tuple(lines)
    by_number = {number: match[2] for number, match in zip(numbers, found, strict=True) if match}
    # Where counting starts with 1, that is the first class unless the file says what 0 is.
    return tuple(by_number.get(i, _GAP) for i in range(numbers[0], numbers[-1] + 1))
