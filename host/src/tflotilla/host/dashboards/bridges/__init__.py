"""Bridges: what carries a fleet's telemetry into somebody else's tool. One file per tool, imported only when chosen.

Each module of `BRIDGES` has:

    HELP: str                                   the text of `tflotilla bridge NAME --help`, as commands' docstrings are
    OPTIONS: tuple[Option, ...]                 what its command takes beside what all bridges take
    open_bridge(setting: Setting) -> Bridge     raises UsageError, ConfigError or InputError, in one line

A new tool is a new file and a new line here; `serving.serve` runs it, `tests/host/dashboards/bridges` holds it against
what follows.

Rules they keep: a bridge publishes only what it returns, and never on a board's own channels; it has no authority to
deploy; what one board says can't spoil what is shown of another; memory is bounded by the number of boards; what isn't
known is left out, never shown as 0.
What this package does NOT do: connect to the broker (`serving` is given a connection), keep anything on disk.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from tflotilla.host.fleet.inventory.fleet import Fleet
from tflotilla.host.telemetry.inbox import Received
from tflotilla.host.telemetry.live import Live
from tflotilla.shared.contract.messages import Message

if TYPE_CHECKING:
    from types import ModuleType

#: Name → its module in this folder.
BRIDGES = {
    "home-assistant": "home_assistant",
    "prometheus": "prometheus",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """One `--name VALUE` of a bridge's command; with `default=False` it is a flag."""

    name: str
    default: str | bool | None
    help: str
    metavar: str = "TEXT"


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What a bridge is opened with.

    `live` is the fleet as heard so far; it changes between two calls of `step`, in the thread that calls it, and must
    not be read by another one.
    """

    fleet: Fleet
    live: Live
    #: `Option.name` → what was given, or its default.
    options: Mapping[str, Any] = field(default_factory=dict)
    #: Show boards that fleet.toml doesn't know, too.
    unknown: bool = False
    #: Says a line to whoever runs the bridge.
    tell: Callable[[str], None] = lambda _line: None


@dataclass(frozen=True, slots=True, kw_only=True)
class News:
    """What happened since the step before. Often nothing: a bridge is stepped about four times a second."""

    #: Unix seconds by this machine's clock.
    now: float
    #: fleet.toml as it reads now; boards that were taken out are gone from `Setting.live` already.
    fleet: Fleet
    #: What boards said that was new and is understood, in order of arrival; `live` holds it already.
    messages: Sequence[Message[Any]] = ()
    #: What came on the topics of `also_hears`.
    others: Sequence[Received] = ()
    #: Whether there is a connection to the broker now; without one nothing new can be known.
    connected: bool = True
    #: True in the first step, and after each interruption: the broker may have forgotten what it was told.
    begins: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Publication:
    """A message to be published; an empty retained one deletes what is retained there."""

    topic: str
    payload: bytes
    retained: bool = False


class Bridge(Protocol):
    """One tool's bridge; used by one thread."""

    @property
    def also_hears(self) -> tuple[str, ...]:
        """Topics to be subscribed beside the boards' channels."""

    @property
    def done(self) -> bool:
        """Whether it wants no further step; a bridge that serves for ever never says so."""

    def step(self, news: News) -> Sequence[Publication]:
        """Take what happened; return what to publish, in order. Must not block, nor raise for anything boards say."""

    def close(self) -> None:
        """Give back sockets and threads."""


def module(name: str) -> ModuleType:
    """Import the module of a bridge, a key of `BRIDGES`."""
    return importlib.import_module(f"{__name__}.{BRIDGES[name]}")
