"""Which layers are meant by `--layers` and `--skip-layers`: names, globs, or a nested model for all that is in it.

What it does NOT do: know which layers can be pruned (`keras_files`).
"""

from __future__ import annotations

import difflib
import fnmatch
from typing import TYPE_CHECKING

from tflotilla.shared.contract.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_PROPOSED = 3
_LISTED = 8


def parse(texts: Iterable[str]) -> tuple[str, ...]:
    """Split values that are repeated, or separated by commas."""
    return tuple(name.strip() for text in texts for name in text.split(",") if name.strip())


def choose(
    prunable: Sequence[str], others: Sequence[str], *, wanted: Sequence[str], skipped: Sequence[str], doing: str
) -> tuple[str, ...]:
    """Return which of the `prunable` layers (paths like "backbone/conv") are meant, in their order.

    Args:
        prunable: paths of the layers that can be treated.
        others: paths of the layers that can't.
        wanted: names, paths, globs; none means all.
        skipped: the same, taken away.
        doing: "pruned", for the sentences.

    Raises:
        UsageError: a name that no layer has (the nearest are proposed), or nothing is left.

    """
    for option, names in (("--layers", wanted), ("--skip-layers", skipped)):
        for name in names:
            _check(option, name, prunable, others, doing)
    chosen = tuple(
        path
        for path in prunable
        if (not wanted or any(_matches(path, name) for name in wanted))
        and not any(_matches(path, name) for name in skipped)
    )
    if not chosen:
        raise UsageError(f"--skip-layers leaves no layer to be {doing}")
    return chosen


def _check(option: str, name: str, prunable: Sequence[str], others: Sequence[str], doing: str) -> None:
    if any(_matches(path, name) for path in prunable):
        return
    if any(_matches(path, name) for path in others):
        if option == "--skip-layers":
            return
        raise UsageError(f"{option} {name!r}: that layer has no weights that are {doing}; {_listed(prunable)} have")
    known = list(dict.fromkeys([*prunable, *(path.rsplit("/", 1)[-1] for path in prunable), *others]))
    near = difflib.get_close_matches(name, known, n=_PROPOSED, cutoff=0.4)
    hint = f"the nearest are {', '.join(near)}" if near else f"it has {_listed(prunable)}"
    raise UsageError(f"{option} {name!r}: the model has no such layer; {hint}")


def _matches(path: str, name: str) -> bool:
    """Whether the path, its last name, or one of the models it lies in is meant."""
    parts = path.split("/")
    candidates = [parts[-1], *("/".join(parts[:end]) for end in range(1, len(parts) + 1))]
    return any(fnmatch.fnmatchcase(candidate, name) for candidate in candidates)


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return ", ".join(names[:_LISTED]) + more
