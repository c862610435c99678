"""Which of several probed runtimes serves."""

from __future__ import annotations

from tflotilla.device.choice import pick
from tflotilla.device.reports import ProbeReport
from tflotilla.shared.contract.board import RuntimeOffer
from tflotilla.shared.contract.messages import DelegateReport


def _report(name: str, *, p50_ns: int, ok: bool = True) -> ProbeReport:
    return ProbeReport(
        ok=ok,
        reason=None if ok else "golden vectors are not reproduced",
        runtime=RuntimeOffer(name=name, version="1"),
        delegate=DelegateReport(requested=None, active=None),
        worst_lsb=0,
        worst_absolute=None,
        load_ns=1,
        p50_ns=p50_ns,
        p99_ns=p50_ns * 2,
        peak_rss_bytes=1,
    )


def test_the_fastest_wins() -> None:
    slow, fast = _report("tflite-runtime", p50_ns=39), _report("ai-edge-litert", p50_ns=2)

    assert pick([slow, fast]) is fast


def test_a_wrong_answer_is_never_fast_enough() -> None:
    right, wrong = _report("ai-edge-litert", p50_ns=39), _report("tflite-runtime", p50_ns=2, ok=False)

    assert pick([wrong, right]) is right


def test_equals_are_decided_by_their_order() -> None:
    first, second = _report("tflite-runtime", p50_ns=5), _report("ai-edge-litert", p50_ns=5)

    assert pick([first, second]) is first


def test_nobody_wins_where_nobody_is_right() -> None:
    assert pick([_report("tflite-runtime", p50_ns=1, ok=False)]) is None
    assert pick([]) is None
