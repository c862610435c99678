"""The agent's configuration: the host writes it (`board bootstrap`), people edit it, the agent obeys it.

This module holds values and their checks; reading TOML is `device.config`, writing it is the host's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from tflotilla.shared.contract.board import check_board_id
from tflotilla.shared.contract.topics import check_fleet


def _check(*, holds: bool, message: str) -> None:
    if not holds:
        raise ValueError(message)


@dataclass(frozen=True, slots=True, kw_only=True)
class MqttConfig:
    """Where to report. `protocol = "auto"` tries MQTT 5, then 3.1.1."""

    host: str = "127.0.0.1"
    port: int = 1883
    username: str | None = None
    #: A file only the agent can read: passwords stand in no argument and no log.
    password_file: str | None = None
    tls: bool = False
    ca_file: str | None = None
    protocol: Literal["auto", "5", "3.1.1"] = "auto"
    keepalive_s: int = 30

    def __post_init__(self) -> None:
        """Raise ValueError with the allowed range."""
        _check(holds=0 < self.port < 1 << 16, message=f"port must be 1..65535, not {self.port}")
        _check(holds=self.keepalive_s >= 1, message=f"keepalive_s must be at least 1, not {self.keepalive_s}")


@dataclass(frozen=True, slots=True, kw_only=True)
class DelegateConfig:
    """An external delegate: a shared library and its options, tried in a child process first."""

    library: str
    options: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class InferenceConfig:
    """How the model runs. `auto` picks, of the runtimes present, the fastest that reproduces the goldens."""

    runtime: Literal["auto", "tflite-runtime", "ai-edge-litert"] = "auto"
    num_threads: int = 1
    #: XNNPACK where the runtime applies it by default.
    xnnpack: bool = True
    delegate: DelegateConfig | None = None
    #: The processors to run on, by the kernel's numbers; empty is whichever the kernel picks.
    affinity: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        """Raise ValueError with the allowed range."""
        _check(holds=1 <= self.num_threads <= 64, message=f"num_threads must be 1..64, not {self.num_threads}")  # noqa: PLR2004
        _check(
            holds=all(0 <= cpu < 1024 for cpu in self.affinity) and len(set(self.affinity)) == len(self.affinity),  # noqa: PLR2004
            message=f"affinity must be different processors, counted from 0, not {list(self.affinity)}",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceConfig:
    """Where inputs come from: `device/sources/<kind>.py`.

    `interval_ms` is the least time between two inferences, 0 is as fast as possible.
    """

    kind: str = "synthetic"
    #: folder: the folder of images.
    path: str | None = None
    interval_ms: float = 100.0
    #: folder: start again at the end, or wait for new files.
    loop: bool = True
    #: synthetic: seed of the random input.
    seed: int = 0

    def __post_init__(self) -> None:
        """Raise ValueError with the allowed range."""
        _check(holds=self.interval_ms >= 0, message=f"interval_ms must not be negative, it is {self.interval_ms}")
        _check(holds=self.kind.isidentifier(), message=f"kind {self.kind!r} is not the name of a source")


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportingConfig:
    """What is reported, and how much is kept while the broker is away.

    `confirm`: a report leaves the outbox when the `broker` took it, or when a `collector` acked it (no loss even
    when the broker dies, but something must ack).
    """

    window_s: float = 1.0
    predictions: bool = True
    outbox_max_mib: float = 64.0
    confirm: Literal["broker", "collector"] = "broker"
    #: Winners with a score below that are counted as `low_confidence`.
    low_confidence_below: float = 0.5
    #: So many answers of each window, drawn at random, stand in its metrics.
    sample: int = 0
    #: Publish each window as plain numbers too, on `flat`.
    flat: bool = False
    #: Show what the model looks at, small, at most that often; None is never: pictures leave the board only if allowed.
    thumbnail_every_s: float | None = None

    def __post_init__(self) -> None:
        """Raise ValueError with the allowed range."""
        _check(holds=0.05 <= self.window_s <= 3600, message=f"window_s must be 0.05..3600, not {self.window_s}")  # noqa: PLR2004
        _check(holds=self.outbox_max_mib >= 1, message=f"outbox_max_mib must be at least 1, not {self.outbox_max_mib}")
        _check(
            holds=0 <= self.low_confidence_below <= 1,
            message=f"low_confidence_below must be 0..1, not {self.low_confidence_below:g}",
        )
        _check(holds=0 <= self.sample <= 100, message=f"sample must be 0..100, not {self.sample}")  # noqa: PLR2004
        _check(
            holds=self.thumbnail_every_s is None or self.thumbnail_every_s >= 0.5,  # noqa: PLR2004 - it costs inference
            message=f"thumbnail_every_s must be at least 0.5, not {self.thumbnail_every_s}",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentConfig:
    """One board's `agent.toml`."""

    board: str
    fleet: str
    mqtt: MqttConfig = field(default_factory=MqttConfig)
    inference: InferenceConfig = field(default_factory=InferenceConfig)
    source: SourceConfig = field(default_factory=SourceConfig)
    reporting: ReportingConfig = field(default_factory=ReportingConfig)

    def __post_init__(self) -> None:
        """Raise ValueError for names that can't be topic levels, and for a folder that nobody named."""
        check_board_id(self.board)
        check_fleet(self.fleet)
        _check(
            holds=self.source.kind != "folder" or self.source.path is not None,
            message="source.path is missing: kind 'folder' needs the folder of images",
        )
