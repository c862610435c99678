"""One cell, measured for real in a process of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.device import running_bundles
from tests.device.benchmark import cells
from tests.device.children import RUNTIMES

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_cell_has_figures_and_what_they_are_worth(tmp_path: Path, runtime: str) -> None:
    answer = cells.ask(cells.spec(running_bundles.write(tmp_path / "b"), runtime=runtime))

    assert answer.code == 0
    cell, measured = answer.cell, answer.measured
    assert cell.error is None
    assert cell.runtime is not None
    assert cell.runtime.name == runtime
    assert cell.configuration.inference.runtime == runtime
    assert (cell.nodes_total, cell.nodes_delegated in {0, 1}) == (4, True)
    assert measured.runs == measured.latency.count == measured.invoke.count == len(measured.latencies_ns) == 70
    assert measured.thinning == 1
    assert 0 < measured.invoke.median_ns < measured.latency.median_ns
    load = measured.load
    assert min(load.import_ns, load.load_ns, load.allocate_ns, load.first_inference_ns) > 0
    assert load.delegate_ns is None
    assert measured.peak_rss_bytes > 5 << 20
    assert measured.samples_per_second > 0
    assert measured.correctness.goldens == measured.correctness.goldens_total == 4
    assert measured.harness.share == pytest.approx(
        (measured.harness.loop_ns + measured.harness.clock_ns) / measured.invoke.median_ns
    )
    assert measured.conditions.before.at_s < 0 < measured.conditions.after.at_s
    assert [phase.doing for phase in answer.phases][-2:] == ["timing", "computing the figures"]
