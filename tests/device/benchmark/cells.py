"""Measuring one cell for real: a spec in, phases and a cell out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from tests.device import children
from tflotilla.device.reports import CELL, PHASE, CellSpec, Phase
from tflotilla.shared.contract import codec
from tflotilla.shared.contract.agent_config import InferenceConfig
from tflotilla.shared.contract.benchmark import BenchmarkCell, Configuration, Measurement, Method

if TYPE_CHECKING:
    from pathlib import Path

#: So short that a test may wait for it: what is measured is not the point here.
QUICK = Method(warmup_runs=2, min_runs=70, min_seconds=0.0, max_seconds=20.0, input_count=4)


class Answer(NamedTuple):
    """What a child said."""

    code: int
    phases: tuple[Phase, ...]
    cell: BenchmarkCell
    log: str

    @property
    def measured(self) -> Measurement:
        """The figures; fails with the reason where there are none."""
        assert self.cell.measurement is not None, self.cell.error
        return self.cell.measurement


def spec(
    bundle: Path,
    *,
    method: Method = QUICK,
    batch: int = 1,
    samples: Path | None = None,
    **inference: Any,  # noqa: ANN401
) -> CellSpec:
    """Make a spec; `inference` are fields of InferenceConfig as in agent.toml, with the last runtime by default."""
    config = codec.decode(InferenceConfig, {"runtime": children.RUNTIMES[-1], **inference}, "test")
    return CellSpec(
        bundle=str(bundle),
        configuration=Configuration(inference=config, batch=batch),
        method=method,
        samples=None if samples is None else str(samples),
    )


def ask(asked: CellSpec) -> Answer:
    """Measure in a fresh process."""
    done = children.ask("benchmark", asked)
    lines = done.stdout.splitlines()
    found = {kind: [line[1:] for line in lines if line[:1] == kind] for kind in (PHASE, CELL)}
    assert len(found[CELL]) == 1, done.stderr.decode()
    assert lines[-1][:1] == CELL
    return Answer(
        done.returncode,
        tuple(codec.decode(Phase, codec.parse_json(line, "phase"), "phase") for line in found[PHASE]),
        codec.decode(BenchmarkCell, codec.parse_json(found[CELL][0], "cell"), "cell"),
        done.stderr.decode(errors="replace"),
    )
