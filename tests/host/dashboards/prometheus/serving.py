"""A bridge to Prometheus that serves on a free port for the time of a test, and how it is asked."""

from __future__ import annotations

import contextlib
import urllib.request
from typing import TYPE_CHECKING, Any

from prometheus_client.parser import text_string_to_metric_families

from tflotilla.host.dashboards import bridges

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from prometheus_client.samples import Sample

    from tests.host.dashboards.prometheus.said import Said
    from tflotilla.host.dashboards.bridges import prometheus


@contextlib.contextmanager
def bridge(said: Said, *, unknown: bool = False, **options: str) -> Iterator[prometheus.PrometheusBridge]:
    """Serve what a fleet said; `options` are the command's."""
    setting = bridges.Setting(
        fleet=said.fleet, live=said.live, unknown=unknown, options={"listen": "127.0.0.1:0", **options}
    )
    opened: prometheus.PrometheusBridge = bridges.module("prometheus").open_bridge(setting)
    try:
        yield opened
    finally:
        opened.close()


def scraped(port: int, *, accept: str = "text/plain", encoding: str = "identity") -> tuple[bytes, Mapping[str, Any]]:
    """Ask once; return the body and the headers."""
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/metrics", headers={"Accept": accept, "Accept-Encoding": encoding}
    )
    with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310 - it says http
        return answer.read(), answer.headers


def samples(port: int) -> list[Sample]:
    """Ask once; return every sample."""
    text = scraped(port)[0].decode()
    return [sample for family in text_string_to_metric_families(text) for sample in family.samples]


def value(port: int, name: str, **labels: str) -> float | None:
    """Return the one sample of that name which has these labels among its own; None without one."""
    found = [each.value for each in samples(port) if each.name == name and labels.items() <= each.labels.items()]
    assert len(found) <= 1, found
    return found[0] if found else None
