"""Which configurations are measured on which board: axes that a user names, times what the board has. Pure.

What a board can't do (more threads than cores, a runtime it lacks) is not left out here: the board refuses such a cell
with the reason, so that every row of a matrix is there.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeVar, cast

from tflotilla.shared.contract.agent_config import DelegateConfig, InferenceConfig
from tflotilla.shared.contract.benchmark import MAX_CELLS, Configuration
from tflotilla.shared.contract.errors import BoardError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tflotilla.shared.contract.board import BoardFacts

T = TypeVar("T")
RUNTIMES = ("tflite-runtime", "ai-edge-litert")
AUTO = "auto"
#: The delegate, and the processors, that the board's own configuration names.
NO_DELEGATE = "none"
_MOST_THREADS = 64
_MOST_PROCESSORS = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Axes:
    """What is varied. An empty `runtimes` is every runtime of the board, an empty `threads` 1 to all its cores."""

    runtimes: tuple[str, ...] = ()
    threads: tuple[int, ...] = (1,)
    xnnpack: tuple[bool, ...] = (True,)
    delegates: tuple[DelegateConfig | None, ...] = (None,)
    #: An empty tuple of processors is "not pinned".
    affinities: tuple[tuple[int, ...], ...] = ((),)
    batches: tuple[int, ...] = (1,)


def configurations(axes: Axes, facts: BoardFacts) -> tuple[Configuration, ...]:
    """Return the cells of one board, runtime by runtime, fewest threads first.

    Raises:
        BoardError: the board has no runtime.
        UsageError: more cells than a board takes on.

    """
    names = axes.runtimes or tuple(offer.name for offer in facts.runtimes)
    if not names:
        raise BoardError(f"{facts.hostname} has no runtime; bootstrap it again")
    threads = axes.threads or tuple(range(1, facts.cores + 1))
    every = itertools.product(names, threads, axes.xnnpack, axes.delegates, axes.affinities, axes.batches)
    found = tuple(
        Configuration(
            inference=InferenceConfig(
                # The contract knows these names; `parse_runtimes` lets no other through.
                runtime=cast("Literal['tflite-runtime', 'ai-edge-litert']", runtime),
                num_threads=count,
                xnnpack=xnnpack,
                delegate=delegate,
                affinity=affinity,
            ),
            batch=batch,
        )
        for runtime, count, xnnpack, delegate, affinity, batch in every
    )
    if len(found) > MAX_CELLS:
        raise UsageError(
            f"{len(found)} configurations are more than the {MAX_CELLS} a board takes on; vary less at once"
        )
    return found


def parse_threads(text: str) -> tuple[int, ...]:
    """Read `1,2,4`, or `auto` (1 to all cores: the empty tuple). Raises UsageError."""
    if text == AUTO:
        return ()
    numbers = _numbers(text, "--threads", "1,2,4 or auto")
    for number in numbers:
        if not 1 <= number <= _MOST_THREADS:
            raise UsageError(f"--threads: {number} is not between 1 and {_MOST_THREADS}")
    return numbers


def parse_runtimes(text: str) -> tuple[str, ...]:
    """Read `auto` (every runtime a board has: the empty tuple) or names with commas. Raises UsageError."""
    if text == AUTO:
        return ()
    names = _unique(text, str.strip)
    for name in names:
        if name not in RUNTIMES:
            raise UsageError(f"--runtimes must be auto or some of {', '.join(RUNTIMES)}, not {name!r}")
    return names


def parse_xnnpack(text: str) -> tuple[bool, ...]:
    """Read `on`, `off` or `both`; benchmark_model's `true` and `false` too. Raises UsageError."""
    try:
        return {"on": (True,), "true": (True,), "off": (False,), "false": (False,), "both": (True, False)}[text.lower()]
    except KeyError:
        raise UsageError(f"--xnnpack is on, off or both, not {text!r}") from None


def parse_delegates(texts: Sequence[str]) -> tuple[DelegateConfig | None, ...]:
    """Read `LIBRARY[:KEY=VALUE…]` or `none`, each an option of its own; none at all is `none`. Raises UsageError."""
    found: list[DelegateConfig | None] = []
    for text in texts:
        delegate = _delegate(text)
        if delegate not in found:
            found.append(delegate)
    return tuple(found) or (None,)


def _delegate(text: str) -> DelegateConfig | None:
    if text == NO_DELEGATE:
        return None
    library, *options = text.split(":")
    if not library or any("=" not in option for option in options):
        raise UsageError(f"--delegate must be none or LIBRARY[:KEY=VALUE…], not {text!r}")
    return DelegateConfig(library=library, options=dict(option.split("=", 1) for option in options))


def parse_affinities(texts: Sequence[str]) -> tuple[tuple[int, ...], ...]:
    """Read sets of processors like `0,1` or `2-3`, or `none`, each an option of its own. Raises UsageError."""
    return tuple(dict.fromkeys(_affinity(text) for text in texts)) or ((),)


def _affinity(text: str) -> tuple[int, ...]:
    if text == NO_DELEGATE:
        return ()
    numbers: list[int] = []
    try:
        for part in text.split(","):
            first, dash, last = part.partition("-")
            span = range(int(first), int(last if dash else first) + 1)
            if not 1 <= len(span) <= _MOST_PROCESSORS:
                # 3-2 is no processor at all, 0-999999999 more than fit into memory.
                raise ValueError(part)  # noqa: TRY301 - it is no number either
            numbers.extend(span)
        return InferenceConfig(affinity=tuple(sorted(set(numbers)))).affinity
    except ValueError:
        raise UsageError(f"--affinity must be none or processors like 0,1 or 2-3, not {text!r}") from None


def parse_batches(text: str) -> tuple[int, ...]:
    """Read `1,4,8`. Raises UsageError."""
    numbers = _numbers(text, "--batch", "1,4,8")
    for number in numbers:
        try:
            Configuration(batch=number)
        except ValueError as error:
            raise UsageError(f"--{error}") from error
    return numbers


def _numbers(text: str, option: str, like: str) -> tuple[int, ...]:
    try:
        return _unique(text, int)
    except ValueError:
        raise UsageError(f"{option} must be numbers like {like}, not {text!r}") from None


def _unique(text: str, read: Callable[[str], T]) -> tuple[T, ...]:
    return tuple(dict.fromkeys(read(part) for part in text.split(",")))
