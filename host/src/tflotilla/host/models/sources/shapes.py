"""Names and shapes that a user gives, against those that a graph has. Pure.

A batch that is unknown becomes 1: a board infers one sample at a time, and fixed shapes are what delegates and the
integer kernels want. Every other unknown dimension is the user's to fix.
"""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

from tflotilla.shared.contract.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

_PROPOSALS = 3
#: A dimension that is to stay unknown: whoever runs the model decides.
OPEN = -1


def parse_input_shapes(texts: Iterable[str]) -> dict[str, tuple[int, ...]]:
    """Parse `--input-shapes`: `1,224,224,3` for the only input, else `NAME=1,224,224,3`; nothing after = is a scalar.

    A dimension that is `?` is to stay open; it becomes `OPEN`.

    Raises:
        UsageError: a dimension that is not a positive number, or an input named twice.

    """
    shapes: dict[str, tuple[int, ...]] = {}
    for text in texts:
        for part in text.split(";"):
            name, separator, numbers = part.rpartition("=")
            name = name.strip() if separator else ""
            try:
                shape = tuple(
                    OPEN if number.strip() == "?" else int(number) for number in numbers.split(",") if number.strip()
                )
            except ValueError:
                raise UsageError(f"--input-shapes {part!r}: write NAME=1,224,224,3") from None
            if any(dimension < 1 for dimension in shape if dimension != OPEN or "-" in numbers):
                raise UsageError(f"--input-shapes {part!r}: dimensions must be at least 1")
            if name in shapes:
                raise UsageError(f"--input-shapes: {name or 'the only input'!r} is given twice")
            shapes[name] = shape
    return shapes


def fix_shape(
    name: str,
    known: Sequence[int | None] | None,
    given: Mapping[str, tuple[int, ...]],
    inputs: Sequence[str],
    *,
    may_stay_open: bool = False,
) -> tuple[int, ...]:
    """Return the shape of one input with every dimension known, but for those that the user wants to be `OPEN`.

    Args:
        name: the input's name.
        known: its dimensions in the graph, None where one is unknown; None when even the rank is.
        given: what the user gave, by name, or by "" when `inputs` is only one.
        inputs: the names of all inputs.
        may_stay_open: whether this source can be converted with such dimensions.

    Raises:
        UsageError: a dimension stays unknown that may not, or the given shape contradicts the graph.

    """
    wanted = given.get(name)
    if wanted is None and len(inputs) == 1:
        wanted = given.get("")
    if wanted is None:
        return _without_batch(name, known, may_stay_open=may_stay_open)
    if OPEN in wanted and not may_stay_open:
        raise UsageError(
            f"--input-shapes {spell(wanted)}: only a frozen graph may leave a dimension open; give a number"
        )
    if known is not None and (
        len(known) != len(wanted) or any(k not in (None, w) for k, w in zip(known, wanted, strict=True))
    ):
        raise UsageError(f"--input-shapes {spell(wanted)} contradicts input {name!r}, which is {spell(known)}")
    return wanted


def check_names(given: Mapping[str, tuple[int, ...]], inputs: Sequence[str]) -> None:
    """Refuse shapes of inputs that don't exist. Raises UsageError proposing the nearest."""
    for name in given:
        if name == "" and len(inputs) > 1:
            raise UsageError(f"--input-shapes: the model has {len(inputs)} inputs ({', '.join(inputs)}); write NAME=…")
        if name and name not in inputs:
            raise UsageError(f"--input-shapes: there is no input {name!r}; {propose(name, inputs)}")


def propose(name: str, known: Sequence[str]) -> str:
    """Return "did you mean …?" with the nearest names, or the first few when none is near."""
    near = difflib.get_close_matches(name, known, n=_PROPOSALS, cutoff=0.6)
    # A node is often given by the last part of its name.
    tail = [k for k in known if k.split("/")[-1].lower() == name.split("/")[-1].lower()]
    found = list(dict.fromkeys([*tail, *near]))[:_PROPOSALS]
    if found:
        return f"did you mean {' or '.join(map(repr, found))}?"
    return f"there are {', '.join(map(repr, known[:_PROPOSALS]))}{' …' if len(known) > _PROPOSALS else ''}"


def spell(shape: Sequence[int | None]) -> str:
    """Return `1,224,224,3`, with ? for what is unknown."""
    return ",".join("?" if dimension in (None, OPEN) else str(dimension) for dimension in shape) or "a scalar"


def _without_batch(name: str, known: Sequence[int | None] | None, *, may_stay_open: bool) -> tuple[int, ...]:
    if known is None:
        raise UsageError(f"input {name!r} is of unknown shape; give it with --input-shapes {name}=…")
    dimensions = [
        1 if i == 0 and dimension is None and None not in known[1:] else dimension for i, dimension in enumerate(known)
    ]
    fixed = tuple(dimension for dimension in dimensions if dimension is not None)
    if len(fixed) != len(known):
        example = ",".join("N" if dimension is None else str(dimension) for dimension in known)
        leave = ", with ? for what is to stay open" if may_stay_open else ""
        raise UsageError(
            f"input {name!r} is {spell(known)}; fix what is unknown: --input-shapes {name}={example}{leave}"
        )
    return fixed
