"""A supervisor for tests of the installer: answers as told, and remembers what it was asked."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from tflotilla.device.choice import Choice
from tflotilla.device.installer import Observation
from tflotilla.device.reports import ProbeReport
from tflotilla.shared.contract.agent_config import InferenceConfig
from tflotilla.shared.contract.board import RuntimeOffer
from tflotilla.shared.contract.deployment import ShadowReport
from tflotilla.shared.contract.messages import DelegateReport
from tflotilla.shared.pace import Pace

if TYPE_CHECKING:
    from pathlib import Path

OLD_RUNTIME = RuntimeOffer(name="tflite-runtime", version="2.14.0")
NEW_RUNTIME = RuntimeOffer(name="ai-edge-litert", version="2.3.0")
_PACE = Pace(runs=100, all_runs=100, p50_ns=1_000_000, p90_ns=1_000_000, p99_ns=1_000_000)
HEALTHY = Observation(results=100, errors=0, crashes=0, pace=_PACE, champion=_PACE)
SLOWER = Observation(
    results=100, errors=0, crashes=0, pace=replace(_PACE, p50_ns=50_000_000, p90_ns=50_000_000), champion=_PACE
)
CRASHING = Observation(results=3, errors=0, crashes=2, pace=None, champion=_PACE)


SHADOWED = ShadowReport(inputs=10, agreed=9)


def probe_report(runtime: RuntimeOffer = OLD_RUNTIME, *, reason: str | None = None, p50_ns: int = 1000) -> ProbeReport:
    """Return a report; one with a reason isn't ok."""
    return ProbeReport(
        ok=reason is None,
        reason=reason,
        runtime=runtime,
        delegate=DelegateReport(requested=None, active=None),
        worst_lsb=0,
        worst_absolute=None,
        load_ns=1,
        p50_ns=p50_ns,
        p99_ns=2 * p50_ns,
        peak_rss_bytes=1 << 20,
    )


@dataclass(slots=True, kw_only=True)
class FakeServing:
    """The `Serving` port. Set what it answers; an exception in place of an answer is raised."""

    reports: tuple[ProbeReport, ...] | Exception = (probe_report(),)
    observation: Observation | Exception = HEALTHY
    #: Bundles whose worker can't be brought up.
    broken: dict[str, Exception] = field(default_factory=dict)
    #: Holds `probe` until it is set: a deployment to be looked at in the middle.
    gate: asyncio.Event | None = None
    probing: asyncio.Event = field(default_factory=asyncio.Event)
    calls: list[tuple[object, ...]] = field(default_factory=list)
    #: What is answered to the probe of one way to run, in place of `reports`.
    tuned: tuple[tuple[InferenceConfig, ProbeReport], ...] = ()
    probed: list[InferenceConfig] = field(default_factory=list)
    chosen: Choice | None = None
    shadowed: ShadowReport | Exception = SHADOWED

    async def probe(self, folder: Path, inference: InferenceConfig) -> tuple[ProbeReport, ...]:
        """Answer `reports`, or what is set for this way to run."""
        self.probed.append(inference)
        self.calls.append(("probe", folder.name))
        self.probing.set()
        if self.gate is not None:
            await self.gate.wait()
        for tuned, answer in self.tuned:
            if tuned == inference:
                return (answer,)
        if isinstance(self.reports, Exception):
            raise self.reports
        return self.reports

    async def shadow(self, champion: Path, candidate: Path, chosen: Choice, inputs: int) -> ShadowReport:
        """Answer `shadowed`."""
        self.calls.append(("shadow", champion.name, candidate.name, chosen, inputs))
        if isinstance(self.shadowed, Exception):
            raise self.shadowed
        return self.shadowed

    async def serve(self, bundle: str | None, chosen: Choice | None) -> None:
        """Serve anything but what is `broken`."""
        self.calls.append(("serve", bundle, None if chosen is None else chosen.runtime))
        self.chosen = chosen
        if bundle in self.broken:
            raise self.broken[bundle]

    async def observe(self, window_s: float) -> Observation:
        """Answer `observation` at once."""
        self.calls.append(("observe", window_s))
        if isinstance(self.observation, Exception):
            raise self.observation
        return self.observation

    @property
    def serving(self) -> str | None:
        """The bundle that was asked for last and could be served."""
        served = [call[1] for call in self.calls if call[0] == "serve" and call[1] not in self.broken]
        last = served[-1] if served else None
        return last if isinstance(last, str) else None
