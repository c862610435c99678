"""Which of several probed ways to run a model serves: pure, so that it can be argued with."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tflotilla.device.reports import ProbeReport


def pick(reports: Iterable[ProbeReport]) -> ProbeReport | None:
    """Return the fastest by median of those that are ok, the first of equals; None when none is ok."""
    return min((report for report in reports if report.ok), key=lambda report: report.p50_ns, default=None)
