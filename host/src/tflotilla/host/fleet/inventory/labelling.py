"""Labels that are set and taken away: which values of fleet.toml that changes.

What it does NOT do: write, or touch what groups say; a board's own labels are what `fleet label` changes.
"""

from __future__ import annotations

import tomllib
from typing import TYPE_CHECKING, Any

from tflotilla.host.fleet.selection import selectors
from tflotilla.shared.contract.errors import ConfigError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path


def parse(words: Sequence[str]) -> tuple[dict[str, str], frozenset[str]]:
    """Read `key=value` and `key-`; return what is to be set, and what to be taken away. Raises UsageError."""
    setting = [word for word in words if "=" in word]
    unwanted = frozenset(word.removesuffix("-") for word in words if "=" not in word)
    for word in words:
        if "=" not in word and not (word.endswith("-") and selectors.is_key(word.removesuffix("-"))):
            message = f"label {word!r}: write key=value to set it, key- to take it away"
            raise UsageError(message)
    wanted = selectors.parse_labels(setting)
    both = sorted(unwanted & wanted.keys())
    if both:
        message = f"label {both[0]!r} can't be set and taken away at once"
        raise UsageError(message)
    return wanted, unwanted


def changes(
    path: Path, names: Iterable[str], wanted: Mapping[str, str], unwanted: frozenset[str]
) -> dict[tuple[str, ...], Any]:
    """Return what is to be put where in a fleet file, path → value, for the boards that would be changed.

    Raises:
        ConfigError: the file can't be read.

    """
    try:
        boards = tomllib.loads(path.read_text()).get("boards", {})
    except (OSError, ValueError) as error:
        message = f"{path}: {error}"
        raise ConfigError(message) from error
    put: dict[tuple[str, ...], Any] = {}
    for name in names:
        own = boards.get(name, {}).get("labels", {})
        labels = {key: value for key, value in {**own, **wanted}.items() if key not in unwanted}
        if labels != own:
            put["boards", name, "labels"] = labels or None
    return put
