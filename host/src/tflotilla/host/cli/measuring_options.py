"""What `benchmark` and `tune` have in common on the command line: options, and what becomes of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import click
import typer

from tflotilla.shared.contract.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tflotilla.host.benchmarks.matrix import Axes
    from tflotilla.host.benchmarks.measuring import Way
    from tflotilla.host.fleet.inventory.fleet import Fleet

_WAYS: dict[str, Literal["mqtt", "ssh"]] = {"mqtt": "mqtt", "ssh": "ssh"}
#: Fields of `Method` whose options are called otherwise.
_NAMED = {
    "run_delay_seconds": "run-delay",
    "rate_hz": "rate",
    "latency_bound_ms": "latency-bound",
    "sustained_seconds": "sustained",
    "cool_to_c": "cool-to",
    "max_rss_mib": "max-rss",
    "max_other_cpu_percent": "max-other-cpu",
}

Threads = Annotated[str, typer.Option("--threads", "--num-threads", help="Like 1,2,4; auto is 1 to all cores.")]
Runtimes = Annotated[str, typer.Option(help="auto is every runtime a board has.")]
Xnnpack = Annotated[str, typer.Option("--xnnpack", "--use-xnnpack", help="on, off or both.")]
MaxSeconds = Annotated[
    float, typer.Option("--max-seconds", "--max-secs", help="Stop after that long, whatever is reached.")
]
WarmupRuns = Annotated[int, typer.Option(help="Runs before the timed ones.")]
CoolTo = Annotated[
    float | None, typer.Option(help="Wait before each configuration until the processor is at so many °C.")
]
Over = Annotated[
    str,
    typer.Option(
        click_type=click.Choice(["auto", *_WAYS]),
        help="How boards are asked; auto is mqtt where the fleet has a broker.",
    ),
]
Timeout = Annotated[float | None, typer.Option(help="Seconds to wait for a board's next answer.")]


def axes(
    *,
    threads: str,
    runtimes: str,
    xnnpack: str,
    delegates: Sequence[str],
    affinities: Sequence[str],
    batch: str,
) -> Axes:
    """Read what is varied. Raises UsageError."""
    from tflotilla.host.benchmarks import matrix

    return matrix.Axes(
        runtimes=matrix.parse_runtimes(runtimes),
        threads=matrix.parse_threads(threads),
        xnnpack=matrix.parse_xnnpack(xnnpack),
        delegates=matrix.parse_delegates(delegates),
        affinities=matrix.parse_affinities(affinities),
        batches=matrix.parse_batches(batch),
    )


def way(fleet: Fleet, over: str) -> Way:
    """Return how the boards of a fleet are asked."""
    if over == "auto":
        return "ssh" if fleet.mqtt is None else "mqtt"
    return _WAYS[over]


def check_timeout(timeout: float | None) -> None:
    """Raise UsageError for a time to wait that is none."""
    if timeout is not None and not timeout > 0:
        raise UsageError("--timeout must be above 0")


def usage_error(error: ValueError) -> UsageError:
    """Return what `Method` says of a field as what is wrong with its option."""
    field, _, rest = str(error).partition(" ")
    return UsageError(f"--{_NAMED.get(field, field.replace('_', '-'))} {rest}")
