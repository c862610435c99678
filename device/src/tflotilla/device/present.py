"""What a board says of the present beside its state: a card of the model that serves, and a window as plain numbers.

Pure: bodies are made of values that others read. What is made here is not numbered, queued or stored by anybody; who
wants to add up or to count takes `metrics`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tflotilla.shared.contract import codec
from tflotilla.shared.contract.manifest import MODEL
from tflotilla.shared.contract.messages import Flat, Metrics, ModelCard

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tflotilla.shared.contract.manifest import Manifest
    from tflotilla.shared.contract.messages import StageLatency

_MIB = 1 << 20
_NS_PER_MS = 1e6
_DECIMALS = 6
#: Of milliseconds: a tenth of a microsecond.
_MS_DECIMALS = 4


def card(bundle: str, manifest: Manifest) -> ModelCard:
    """Describe what serves to who has no bundle; `bundle` is its digest."""
    return ModelCard(
        digest=bundle,
        name=manifest.name,
        version=manifest.version,
        release=manifest.release,
        scheme=manifest.scheme,
        size_bytes=manifest.files[MODEL].size,
        evaluation=manifest.evaluation,
        reference=manifest.reference,
    )


def flat_body(metrics: bytes) -> bytes:
    """Return the body of a Flat message of the same window; what isn't known has no key in it.

    Raises:
        ContractError: these are no metrics.

    """
    document = codec.parse_json(metrics, "metrics")
    fields = codec.encode(flat(codec.decode(Metrics, document, "metrics")))
    return codec.canonical_json({name: value for name, value in fields.items() if value is not None})


def flat(metrics: Metrics) -> Flat:
    """Return a window as plain numbers."""
    winners = sum(label.count for label in metrics.labels)
    stages = metrics.stages
    return Flat(
        window_s=metrics.window_s,
        count=metrics.count,
        errors=metrics.errors,
        unreadable=metrics.unreadable,
        dropped=metrics.dropped,
        inferences_per_second=round(metrics.count / metrics.window_s, 3) if metrics.window_s > 0 else 0.0,
        rss_mib=round(metrics.rss_bytes / _MIB, 3),
        decode_p50_ms=_ms(stages, "decode", "p50_ns"),
        decode_p99_ms=_ms(stages, "decode", "p99_ns"),
        preprocess_p50_ms=_ms(stages, "preprocess", "p50_ns"),
        preprocess_p99_ms=_ms(stages, "preprocess", "p99_ns"),
        invoke_p50_ms=_ms(stages, "invoke", "p50_ns"),
        invoke_p90_ms=_ms(stages, "invoke", "p90_ns"),
        invoke_p99_ms=_ms(stages, "invoke", "p99_ns"),
        postprocess_p50_ms=_ms(stages, "postprocess", "p50_ns"),
        postprocess_p99_ms=_ms(stages, "postprocess", "p99_ns"),
        total_p50_ms=_ms(stages, "total", "p50_ns"),
        total_p90_ms=_ms(stages, "total", "p90_ns"),
        total_p99_ms=_ms(stages, "total", "p99_ns"),
        mean_score=_share(sum(label.mean_score * label.count for label in metrics.labels), winners),
        top_label_share=_share(max((label.count for label in metrics.labels), default=0), winners),
        low_confidence_share=None if metrics.low_confidence is None else _share(metrics.low_confidence, winners),
        temperature_c=metrics.temperature_c,
        throttled=None if metrics.throttled is None else int(metrics.throttled),
    )


def _ms(stages: Mapping[str, StageLatency], stage: str, figure: str) -> float | None:
    latency = stages.get(stage)
    return None if latency is None else round(getattr(latency, figure) / _NS_PER_MS, _MS_DECIMALS)


def _share(part: float, whole: int) -> float | None:
    return round(part / whole, _DECIMALS) if whole else None
