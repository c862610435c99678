"""The cases by name, each a module of `cases/`, imported when it is asked for.

Each module has `TITLE`, `NEEDS` (what must lie in the data folder, in words; "" for nothing), `MINUTES` (on two cores,
roughly) and `run(desk: Desk) -> Reproduction`.
"""

from __future__ import annotations

import difflib
import importlib
from typing import TYPE_CHECKING, Protocol, cast

from tflotilla.shared.contract.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tflotilla.host.reproductions.desk import Desk
    from tflotilla.host.reproductions.reproduction import Reproduction

CASES = (
    "mobilenet-v2-sizes",
    "mobilenet-v2-speed",
    "mnist-weights",
    "mnist-uint8",
    "float16",
    "vgg16-pruned",
    "mnist-pruned",
    "resnet-v2-101",
    "ssd-mobilenet",
    "mtcnn",
    "decode-predictions",
)
ALL = "all"


class Case(Protocol):
    """A module of `cases/`."""

    TITLE: str
    NEEDS: str
    MINUTES: int

    def run(self, desk: Desk) -> Reproduction:
        """Do the case."""


def choose(names: Sequence[str]) -> tuple[str, ...]:
    """Return the names of the cases that are asked for. Raises UsageError proposing the nearest."""
    if ALL in names:
        return CASES
    for name in names:
        if name not in CASES:
            near = difflib.get_close_matches(name, CASES, n=2)
            hint = f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(CASES)}"
            raise UsageError(f"there is no case {name!r}; {hint}")
    return tuple(dict.fromkeys(names))


def case(name: str) -> Case:
    """Import one case."""
    return cast("Case", importlib.import_module(f"tflotilla.host.reproductions.cases.{name.replace('-', '_')}"))
