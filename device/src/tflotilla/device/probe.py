"""The child that loads a candidate for the first time: ProbeSpec in, ProbeReport out.

It checks what the manifest promises against what the runtime sees, in this order: inputs and outputs, golden vectors,
p99 latency, memory. Version numbers of ops are no proof that a runtime computes right (old kernels give silent zeros):
goldens are. It may be killed by a corrupt model: the supervisor reads a missing report as a crash.
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from tflotilla.device import child, facts, scheduling
from tflotilla.device.bundle_folder import BundleFolder
from tflotilla.device.reports import ProbeReport, ProbeSpec
from tflotilla.shared.contract.errors import TflotillaError
from tflotilla.shared.contract.messages import DelegateReport
from tflotilla.shared.statistics import minimum_runs, summarize

if TYPE_CHECKING:
    from tflotilla.device.loading import Loaded
    from tflotilla.shared.contract.manifest import HealthPolicy, Manifest
    from tflotilla.shared.contract.tensors import TensorSpec
    from tflotilla.shared.inference.goldens import GoldenVectors

_MIB = 1 << 20


def main() -> int:
    """Answer one ProbeSpec with one ProbeReport."""
    return child.answer_once(ProbeSpec, probe)


def probe(spec: ProbeSpec) -> ProbeReport:
    """Load, compare, measure; errors of ours become the reason of a report that is not ok."""
    name = spec.inference.runtime
    requested = None if spec.inference.delegate is None else spec.inference.delegate.library
    report = ProbeReport(
        ok=False,
        reason=None,
        runtime=facts.offer(name) or child.absent(name),
        delegate=DelegateReport(requested=requested, active=None),
        worst_lsb=None,
        worst_absolute=None,
        load_ns=0,
        p50_ns=0,
        p99_ns=0,
        peak_rss_bytes=0,
    )
    try:
        return _examine(spec, report)
    except TflotillaError as error:
        return replace(report, reason=str(error), peak_rss_bytes=facts.peak_rss_bytes())


def _examine(spec: ProbeSpec, report: ProbeReport) -> ProbeReport:
    scheduling.bind(spec.inference.affinity)
    from tflotilla.device import loading
    from tflotilla.shared.inference import goldens

    bundle = BundleFolder.open(Path(spec.bundle))
    vectors = goldens.load(bundle.goldens())
    loaded = loading.load(bundle, spec.inference)
    report = replace(report, runtime=loaded.runtime, delegate=loaded.delegate, load_ns=loaded.load_ns)
    promised, found = bundle.manifest, loaded.model
    objection = (
        interface_objection("input", promised.inputs, found.inputs)
        or interface_objection("output", promised.outputs, found.outputs)
        or _count_objection(promised, vectors)
    )
    if objection is not None:
        return replace(report, reason=objection, peak_rss_bytes=facts.peak_rss_bytes())

    verdict = goldens.reproduce(found, vectors, promised.goldens)
    report = replace(report, worst_lsb=verdict.worst_lsb, worst_absolute=verdict.worst_absolute)
    if not verdict.ok:
        reason = f"golden vectors are not reproduced with {loaded.runtime}: {verdict.reason}"
        return replace(report, reason=reason, peak_rss_bytes=facts.peak_rss_bytes())

    health = promised.health
    # A limit on the p99 takes the runs that a p99 takes, as far as there is time for them.
    runs = spec.runs if health.max_p99_ms is None else max(spec.runs, minimum_runs(99))
    figures = _measure(loaded, vectors, runs=runs, at_most_s=health.probe_timeout_s / 2)
    objection = health_objection(figures, health)
    return replace(
        report,
        ok=objection is None,
        reason=objection,
        p50_ns=figures.p50_ns,
        p99_ns=figures.p99_ns,
        peak_rss_bytes=figures.peak_rss_bytes,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What was measured."""

    runs: int
    p50_ns: int
    p90_ns: int
    p99_ns: int
    peak_rss_bytes: int


def interface_objection(kind: str, promised: tuple[TensorSpec, ...], found: tuple[TensorSpec, ...]) -> str | None:
    """Say where the model's inputs or outputs are not what the manifest promises; names are not compared.

    A runtime may report a quantization or a shape that the manifest leaves out, but not another one: files don't say
    the shapes of a detector's outputs, which its last op decides when it is prepared.
    """
    if len(promised) != len(found):
        return f"the model has {len(found)} {kind}s, the manifest says {len(promised)}"
    for number, (wanted, got) in enumerate(zip(promised, found, strict=True)):
        place = f"{kind} {number} ({wanted.name})"
        if wanted.dtype != got.dtype:
            return f"{place} is {got.dtype}, the manifest says {wanted.dtype}"
        if wanted.shape not in ((), got.shape):
            return f"{place} has shape {list(got.shape)}, the manifest says {list(wanted.shape)}"
        if wanted.quantization is not None and not _same_scale(wanted, got):
            return f"{place} is quantized otherwise than the manifest says: {got.quantization}"
    return None


def health_objection(figures: Figures, health: HealthPolicy) -> str | None:
    """Name the figure and the limit of the bundle's health policy that it breaks.

    Where the time did not suffice for a p99, a lower percentile is held against its limit: what a p50 or p90 breaks,
    the p99 breaks too.
    """
    percentile, latency_ns = "p50", figures.p50_ns
    if figures.runs >= minimum_runs(99):
        percentile, latency_ns = "p99", figures.p99_ns
    elif figures.runs >= minimum_runs(90):
        percentile, latency_ns = "p90", figures.p90_ns
    if health.max_p99_ms is not None and latency_ns / 1e6 > health.max_p99_ms:
        return (
            f"{percentile} latency is {latency_ns / 1e6:.3f} ms, the bundle's limit of p99 is {health.max_p99_ms:g} ms"
        )
    rss_mib = figures.peak_rss_bytes / _MIB
    if health.max_rss_mib is not None and rss_mib > health.max_rss_mib:
        return f"peak memory is {rss_mib:.1f} MiB, the bundle's limit is {health.max_rss_mib:g} MiB"
    return None


def _same_scale(wanted: TensorSpec, got: TensorSpec) -> bool:
    if wanted.quantization is None or got.quantization is None:
        return wanted.quantization is got.quantization
    # Scales are float32 in the file: written as decimals and read back they may differ in the last bit.
    pairs = zip(wanted.quantization.scales, got.quantization.scales, strict=False)
    return (
        len(wanted.quantization.scales) == len(got.quantization.scales)
        and all(abs(a - b) <= 1e-6 * max(abs(a), abs(b)) for a, b in pairs)
        and wanted.quantization.zero_points == got.quantization.zero_points
    )


def _count_objection(promised: Manifest, vectors: GoldenVectors) -> str | None:
    count = len(vectors.inputs)
    if count == 0 or count != promised.goldens.count:
        return f"there are {count} golden vectors, the manifest says {promised.goldens.count} and 1 is the least"
    return None


def _measure(loaded: Loaded, vectors: GoldenVectors, *, runs: int, at_most_s: float) -> Figures:
    model, tensors = loaded.model, vectors.inputs[0]
    clock = time.perf_counter_ns
    taken: list[int] = []
    until = clock() + int(at_most_s * 1e9)
    while len(taken) < max(1, runs) and (not taken or clock() < until):
        begin = clock()
        model.set_inputs(tensors)
        model.invoke()
        model.get_outputs()
        taken.append(clock() - begin)
    latency = summarize(taken)
    return Figures(
        runs=len(taken),
        p50_ns=latency.p50_ns,
        p90_ns=latency.p90_ns,
        p99_ns=latency.p99_ns,
        peak_rss_bytes=facts.peak_rss_bytes(),
    )


if __name__ == "__main__":
    sys.exit(main())
