"""Where a worker's inputs come from: one file per kind, found by name, imported only when chosen.

A module of this folder offers `open_source(config, inputs) -> Source`. Its promises are proven for every kind by
tests/device/test_sources_contract.py: a new kind is a new file here and nothing else.
"""

from __future__ import annotations

import importlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from tflotilla.shared.contract.errors import ConfigError

if TYPE_CHECKING:
    from numpy.typing import NDArray  # noqa: TC004 - an Item is never decoded, and the supervisor must not load numpy

    from tflotilla.shared.contract.agent_config import SourceConfig
    from tflotilla.shared.contract.tensors import TensorSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One input: an image still to be decoded (a file, or its bytes), or tensors ready for the model."""

    name: str
    image: Path | bytes | None = None
    tensors: tuple[NDArray[Any], ...] | None = None


class Source(Protocol):
    """A place inputs come from. Used by one thread; never blocks longer than reading a directory takes."""

    @property
    def gives_images(self) -> bool:
        """Whether items are images, which the bundle's preprocessing must turn into tensors."""

    def next_item(self) -> Item | None:
        """Return the next item, or None when there is none now: ask again later.

        Raises:
            DatasetError: there may be none for long, and why (the folder is empty, or went away).

        """

    def close(self) -> None:
        """Release what it holds; harmless when repeated."""


def kinds() -> tuple[str, ...]:
    """Return the names of all kinds, sorted."""
    # Read as names: pkgutil would tell the same, and its imports take a session's start longer than all else here.
    found = (entry.name for folder in __path__ for entry in os.scandir(folder))
    return tuple(sorted(name[:-3] for name in found if name.endswith(".py") and not name.startswith("_")))


def open_source(config: SourceConfig, inputs: tuple[TensorSpec, ...]) -> Source:
    """Open the configured source for a model with these inputs.

    Raises:
        ConfigError: there is no such kind, or the source can't work as configured.

    """
    if config.kind not in kinds():
        message = f"source.kind {config.kind!r} is not known; allowed are {', '.join(kinds())}"
        raise ConfigError(message)
    module = importlib.import_module(f"{__name__}.{config.kind}")
    source: Source = module.open_source(config, inputs)
    return source
