"""How the model that serves fared meanwhile: from its windows alone."""

from __future__ import annotations

from tflotilla.device import bystander
from tflotilla.device.bystander import Overheard
from tflotilla.shared.contract import codec
from tflotilla.shared.contract.benchmark import ServingDuring


def window(count: int, p50_ns: int, *, errors: int = 0) -> bytes:
    total = {"count": count, "p50_ns": p50_ns, "p90_ns": 2 * p50_ns, "p99_ns": 3 * p50_ns}
    return codec.canonical_json({"count": count, "errors": errors, "stages": {"total": total} if count else {}})


def test_a_window_with_a_hiccup_does_not_decide() -> None:
    heard = Overheard(windows=[window(10, 100), window(10, 9000), window(10, 110)])

    fared = bystander.fared([window(10, 50)], heard)

    assert (fared.results, fared.p50_ns, fared.p99_ns) == (30, 110, 330)
    assert (fared.before_p50_ns, fared.before_p99_ns) == (50, 150)


def test_errors_and_restarts_are_counted() -> None:
    heard = Overheard(windows=[window(3, 100, errors=1), window(0, 0, errors=4)], crashes=2)

    fared = bystander.fared([], heard)

    assert (fared.results, fared.errors, fared.restarts) == (3, 5, 2)


def test_where_nothing_was_heard_there_is_no_latency() -> None:
    assert bystander.fared([], Overheard()) == ServingDuring(
        results=0, errors=0, p50_ns=None, p99_ns=None, before_p50_ns=None, before_p99_ns=None
    )
