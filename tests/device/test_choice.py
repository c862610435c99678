"""Which of several probed runtimes serves."""

from __future__ import annotations

import pytest

from tflotilla.device.choice import Choice, pick, stale
from tflotilla.device.reports import ProbeReport
from tflotilla.shared.contract.agent_config import InferenceConfig
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


LITERT = RuntimeOffer(name="ai-edge-litert", version="2.3.0")
TUNED = Choice(
    runtime=LITERT,
    inference=InferenceConfig(runtime="ai-edge-litert", num_threads=2, affinity=(2, 3)),
    kernel="6.6.31",
)


def _stale(choice: Choice, *, version: str = "2.3.0", kernel: str = "6.6.31", processors: int = 4) -> str | None:
    offers = (RuntimeOffer(name="ai-edge-litert", version=version),)
    return stale(choice, offers=offers, kernel=kernel, processors=range(processors))


def test_what_tuning_found_holds_where_nothing_has_changed() -> None:
    assert _stale(TUNED) is None


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"version": "2.4.0"}, "it was found with ai-edge-litert==2.3.0, now it is ai-edge-litert==2.4.0"),
        ({"kernel": "6.12.1"}, "it was found on kernel 6.6.31, now it is 6.12.1"),
        ({"processors": 3}, "processor 3 is not there; there are 0, 1, 2"),
        ({"processors": 1}, "2 threads are more than this board has processors (1)"),
    ],
)
def test_what_has_changed_is_named(change: dict[str, str], reason: str) -> None:
    assert _stale(TUNED, **change) == reason  # type: ignore[arg-type]


def test_what_was_never_tuned_is_never_stale() -> None:
    assert _stale(Choice(runtime=LITERT), version="9", kernel="9", processors=1) is None
