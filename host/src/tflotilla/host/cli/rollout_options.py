"""The options that decide how a rollout goes, and what becomes of them: a `Policy`."""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, Annotated, Any

import click
import typer

from tflotilla.host.cli import quantities
from tflotilla.shared.contract.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tflotilla.host.rollouts.policy import GateLimits, Policy

Waves = Annotated[
    str,
    typer.Option(
        "--waves",
        help="How many boards by the end of each wave: counts, percentages, labels; `!` waits for `approve`.",
    ),
]
Soak = Annotated[str, typer.Option("--soak", help="How long a wave serves before it is judged, like 90s or 10min.")]
Baseline = Annotated[
    str, typer.Option("--baseline", help="How long the bundle before is watched first, where one serves.")
]
Success = Annotated[
    str, typer.Option("--success", help="Of the boards a wave reached, at least so many keep every gate.")
]
Error = Annotated[str, typer.Option("--error", help="More failures than that in a wave stop everything.")]
OnFailure = Annotated[
    str,
    typer.Option(
        "--on-failure",
        click_type=click.Choice(["rollback", "halt"]),
        help="What becomes of the boards that have the bundle when everything stops.",
    ),
]
Shadow = Annotated[
    int,
    typer.Option(
        "--shadow", min=0, help="Inputs of the board's own that old and new bundle see side by side before the switch."
    ),
]
Gate = Annotated[
    list[str] | None,
    typer.Option("--gate", metavar="NAME=LIMIT", help="Another limit: latency_ratio=1.2, labels_psi=off, … See below."),
]
Forks = Annotated[int | None, typer.Option("--forks", min=1, help="How many boards at once; default [rollouts] forks.")]
LimitRate = Annotated[
    str | None, typer.Option("--limit-rate", help="Bytes per second for all boards together, like 500kB.")
]


def share(option: str, text: str) -> float:
    """Read `90%` or `0.9`. Raises UsageError."""
    percent = text.strip().endswith("%")
    try:
        value = float(text.strip().removesuffix("%")) / (100 if percent else 1)
    except ValueError:
        value = math.nan
    if not 0 <= value <= 1:
        raise UsageError(f"{option} must be like 90% or 0.9, not {text!r}")
    return value


def policy(
    *, soak: str, baseline: str, success: str, error: str, on_failure: str, shadow: int, gates: Sequence[str]
) -> Policy:
    """Return what was decided. Raises UsageError naming the option."""
    from tflotilla.host.rollouts.policy import Policy

    limits = gate_limits(gates)
    if shadow == 0:
        # Nobody compares what nobody looked at.
        limits = dataclasses.replace(limits, agreement=None)
    try:
        return Policy(
            soak_s=quantities.seconds("--soak", soak) or 0.0,
            baseline_s=quantities.seconds("--baseline", baseline) or 0.0,
            success=share("--success", success),
            error=share("--error", error),
            on_failure="halt" if on_failure == "halt" else "rollback",
            shadow=shadow,
            gates=limits,
        )
    except ValueError as wrong:
        raise UsageError(f"--{wrong}") from wrong


def gate_limits(given: Sequence[str]) -> GateLimits:
    """Read `name=limit` and `name=off`. Raises UsageError naming what there is."""
    from tflotilla.host.rollouts.policy import GateLimits

    known = {field.name for field in dataclasses.fields(GateLimits)}
    changed: dict[str, Any] = {}
    for text in given:
        name, equals, value = text.partition("=")
        if text == "all=off":
            changed |= dict.fromkeys(known)
            continue
        if not equals or name not in known:
            raise UsageError(f"--gate {text!r}: write NAME=LIMIT or NAME=off; there are {', '.join(sorted(known))}")
        changed[name] = None if value == "off" else _limit(text, value, whole=name == "crashes")
    try:
        return GateLimits(**changed)
    except ValueError as error:
        raise UsageError(f"--gate {error}") from error


def _limit(text: str, value: str, *, whole: bool) -> float:
    try:
        return int(value) if whole else share("--gate", value) if value.endswith("%") else float(value)
    except ValueError as error:
        raise UsageError(f"--gate {text!r}: the limit must be a number or off") from error
