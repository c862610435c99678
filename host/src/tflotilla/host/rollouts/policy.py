"""What a person decided before a rollout began: when a wave may be followed by the next, and what stops everything.

What it does NOT do: judge (`gates`), or decide what follows (`engine`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

Gate = Literal[
    "deployment",
    "errors",
    "crashes",
    "latency",
    "memory",
    "temperature",
    "labels",
    "confidence",
    "agreement",
]
GATES: tuple[Gate, ...] = (
    "deployment",
    "errors",
    "crashes",
    "latency",
    "memory",
    "temperature",
    "labels",
    "confidence",
    "agreement",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class GateLimits:
    """What a board may do after the switch; None switches a gate off. Ratios are to the bundle before it there."""

    #: Share of inferences that fail.
    error_rate: float | None = 0.02
    #: Deaths of the worker.
    crashes: int | None = 0
    latency_ratio: float | None = 1.5
    latency_ms: float | None = None
    memory_ratio: float | None = 1.5
    memory_mib: float | None = None
    temperature_c: float | None = 85.0
    #: Population stability index of how often each label wins; 0.25 is the usual word for "another population".
    labels_psi: float | None = 0.25
    #: The same of the winners' scores, in ten bins.
    confidence_psi: float | None = 0.25
    #: Share of shadowed inputs on which both bundles say the same, at least.
    agreement: float | None = 0.8

    def __post_init__(self) -> None:
        """Raise ValueError with the allowed range."""
        shares = {"error_rate": self.error_rate, "agreement": self.agreement}
        for name, share in shares.items():
            if share is not None and not 0 <= share <= 1:
                message = f"{name} must be 0..1, not {share}"
                raise ValueError(message)
        rest = {
            "crashes": self.crashes,
            "latency_ratio": self.latency_ratio,
            "latency_ms": self.latency_ms,
            "memory_ratio": self.memory_ratio,
            "memory_mib": self.memory_mib,
            "labels_psi": self.labels_psi,
            "confidence_psi": self.confidence_psi,
        }
        if self.temperature_c is not None and math.isnan(self.temperature_c):
            message = "temperature_c must be a number, not nan"
            raise ValueError(message)
        for name, value in rest.items():
            # NaN is not at least 0 either.
            if value is not None and not value >= 0:
                message = f"{name} must be at least 0, not {value}"
                raise ValueError(message)


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """How a rollout goes on and stops.

    A wave has succeeded when at least `success` of the boards it reached keep every gate; everything stops as soon as
    more than `error` of a wave's boards failed. Boards that are off count for neither.
    """

    #: The bundle must have served that long before a wave is judged, in seconds.
    soak_s: float = 60.0
    #: So long the bundle before is watched first, on boards that have one. 0: what is known by then.
    baseline_s: float = 10.0
    success: float = 0.9
    error: float = 0.1
    #: What becomes of the boards that have the bundle when everything stops.
    on_failure: Literal["halt", "rollback"] = "rollback"
    #: Inputs of the board's own source that both bundles see before the switch; 0: none.
    shadow: int = 50
    gates: GateLimits = field(default_factory=GateLimits)

    def __post_init__(self) -> None:
        """Raise ValueError with the allowed range."""
        for name, share in (("success", self.success), ("error", self.error)):
            if not 0 <= share <= 1:
                message = f"{name} must be 0..1 (or a percentage), not {share}"
                raise ValueError(message)
        for name, seconds in (("soak", self.soak_s), ("baseline", self.baseline_s)):
            if not 0 <= seconds <= 30 * 86400:
                message = f"{name} must be 0..30 days, not {seconds} s"
                raise ValueError(message)
        if not 0 <= self.shadow <= 10_000:  # noqa: PLR2004 - minutes on a small board
            message = f"shadow must be 0..10000 inputs, not {self.shadow}"
            raise ValueError(message)
