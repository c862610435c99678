"""How the model that serves fares while another process is measured: its windows, overheard. Pure.

The medians are of windows, as `pace` takes them: a window with a hiccup does not decide. Latency is that of an
inference's whole way, from the input to the answer. What it does NOT do: count what happened when nothing serves.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tflotilla.shared import pace
from tflotilla.shared.contract.benchmark import ServingDuring

if TYPE_CHECKING:
    from collections.abc import Iterable


@dataclass(slots=True, kw_only=True)
class Overheard:
    """What came from the worker since somebody began to listen."""

    #: Bodies of Metrics messages.
    windows: list[bytes] = field(default_factory=list)
    crashes: int = 0


def fared(before: Iterable[bytes], heard: Overheard) -> ServingDuring:
    """Return the figures; latencies are None where no window has results."""
    documents = [json.loads(body) for body in heard.windows]
    then, now = pace.of(before), pace.of(heard.windows)
    return ServingDuring(
        results=sum(document["count"] for document in documents),
        errors=sum(document["errors"] for document in documents),
        p50_ns=now.p50_ns if now else None,
        p99_ns=now.p99_ns if now else None,
        before_p50_ns=then.p50_ns if then else None,
        before_p99_ns=then.p99_ns if then else None,
        restarts=heard.crashes,
    )
