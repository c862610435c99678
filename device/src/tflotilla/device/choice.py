"""How a bundle is served on this board: which of several probed runtimes, and what tuning found, while that holds.

Pure, so that it can be argued with. What it does NOT do: probe, remember (`store`), or serve (`serving`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tflotilla.shared.contract.agent_config import InferenceConfig
from tflotilla.shared.contract.board import RuntimeOffer

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from tflotilla.device.reports import ProbeReport


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """How one bundle is to be served, as its probe found it good."""

    runtime: RuntimeOffer
    #: What tuning found, with a concrete runtime; None is what agent.toml says.
    inference: InferenceConfig | None = None
    #: The kernel it was probed on; another one may make something else the fastest.
    kernel: str | None = None


def pick(reports: Iterable[ProbeReport]) -> ProbeReport | None:
    """Return the fastest by median of those that are ok, the first of equals; None when none is ok."""
    return min((report for report in reports if report.ok), key=lambda report: report.p50_ns, default=None)


def stale(choice: Choice, *, offers: Collection[RuntimeOffer], kernel: str, processors: Collection[int]) -> str | None:
    """Say why what tuning found does not hold on this board any more; None when it does, or was never tuned."""
    inference = choice.inference
    if inference is None:
        return None
    if choice.runtime not in offers:
        here = ", ".join(str(offer) for offer in offers if offer.name == choice.runtime.name) or "not installed"
        return f"it was found with {choice.runtime}, now it is {here}"
    if choice.kernel != kernel:
        return f"it was found on kernel {choice.kernel or 'unknown'}, now it is {kernel}"
    return misfit(inference, processors)


def misfit(inference: InferenceConfig, processors: Collection[int]) -> str | None:
    """Say why a board with these processors can't run it so; None when it can."""
    if inference.num_threads > len(processors):
        return f"{inference.num_threads} threads are more than this board has processors ({len(processors)})"
    if absent := sorted(set(inference.affinity) - set(processors)):
        return f"processor {', '.join(map(str, absent))} is not there; there are {', '.join(map(str, processors))}"
    return None


def objection(report: ProbeReport) -> str | None:
    """Say why a tuned configuration is not to be served by its probe; None when it is.

    Without the delegate it was tuned with it is another configuration, however right its answers are.
    """
    if not report.ok:
        return report.reason or "refused without a reason"
    delegate = report.delegate
    if delegate.requested is not None and delegate.active is None:
        return f"its delegate is not active: {delegate.reason or 'no reason given'}"
    return None


def described(inference: InferenceConfig) -> str:
    """Return a tuned configuration in words, without its runtime."""
    parts = [f"{inference.num_threads} thread{'' if inference.num_threads == 1 else 's'}"]
    if not inference.xnnpack:
        parts.append("without XNNPACK")
    if inference.delegate is not None:
        parts.append(f"delegate {inference.delegate.library}")
    if inference.affinity:
        parts.append(f"on processor {', '.join(map(str, inference.affinity))}")
    return ", ".join(parts)
