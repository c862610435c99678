"""The words for a benchmark's figures, the same in every form: values in, text out.

Rules: a figure that too few runs support is not spelled, the shortage is; numbers are bounded before they are divided,
since a board may claim any; foreign words have lost their control characters. What it does NOT do: escape for HTML,
Markdown or CSV, which is the business of whoever writes those.
"""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING, Literal

from tflotilla.host.pages.words import duration as _duration
from tflotilla.host.pages.words import printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from tflotilla.host.benchmarks.results import BoardRun, Run
    from tflotilla.shared.contract.benchmark import (
        BenchmarkCell,
        Configuration,
        Correctness,
        Distribution,
        Method,
        PercentileFigure,
        ServingDuring,
    )

Unit = Literal["µs", "ms"]
Standing = Literal["VALID", "INVALID", "ERROR"]

NOTHING = "-"
#: No clock counts that far; beyond it a claim is cut, so that arithmetic on it can't fail.
_MOST = 1e18
NS_PER: dict[Unit, float] = {"µs": 1e3, "ms": 1e6}
_MIB = 1 << 20
_NAME_LENGTH = 60
_SENTENCE_LENGTH = 300
_SHORT_RUNTIME = {"tflite-runtime": "tflite", "ai-edge-litert": "litert"}
#: Four significant digits are shown below this, whole numbers from there.
_WHOLE = 1000.0
#: MLPerf LoadGen: what a scenario is judged by. Offline is judged by its throughput.
_CLAIMS: dict[str, float | None] = {"single_stream": 90.0, "multi_stream": 99.0, "offline": None, "server": 99.0}
SCENARIOS = {
    "single_stream": "SingleStream",
    "multi_stream": "MultiStream",
    "offline": "Offline",
    "server": "Server",
}


def real(value: float) -> float:
    """Return a number as a float that can be calculated with, however large the claim."""
    return float(max(-_MOST, min(value, _MOST)))


def number(value: float) -> str:
    """Spell a number with four significant digits and without an exponent: `0.0254`, `1.84`, `39.35`, `12,345`."""
    value = real(value)
    if abs(value) >= _WHOLE:
        return f"{value:,.0f}"
    text = f"{value:.4g}"
    return f"{value:.9f}".rstrip("0").rstrip(".") if "e" in text else text


def unit_of(values_ns: Iterable[float]) -> Unit:
    """Return the unit for figures that stand together: µs where none reaches a millisecond."""
    return "ms" if max((real(value) for value in values_ns), default=NS_PER["ms"]) >= NS_PER["ms"] else "µs"


def figure(nanoseconds: float | None, unit: Unit = "ms") -> str:
    """Spell a latency without its unit; nothing for None."""
    return "" if nanoseconds is None else number(real(nanoseconds) / NS_PER[unit])


def duration(nanoseconds: float | None) -> str:
    """Spell a latency with its unit: `25.4 µs`; `-` for None."""
    return NOTHING if nanoseconds is None else _duration(real(nanoseconds))


def mebibytes(size_bytes: float | None) -> str:
    """Spell a size in MiB; `-` for None, and for 0, which no process takes."""
    return f"{real(size_bytes) / _MIB:,.1f} MiB" if size_bytes else NOTHING


def percent(share: float) -> str:
    """Spell a share: `0.0123` is `1.2 %`, `0.9125` is `91.2 %`."""
    return f"{real(share) * 100:,.1f} %"


def off(value: float, reference: float) -> str:
    """Spell how far a value is from another, which is not 0: `+5.0 %`."""
    return signed_percent(real(value) / real(reference) - 1)


def signed_percent(share: float) -> str:
    """Spell a change: `-0.012` is `-1.2 %`."""
    rounded = round(100 * real(share), 1) + 0.0  # no -0.0
    return f"{rounded:+,.1f} %"


def cut(text: str, length: int) -> str:
    """Show foreign words, on one line, at most so long."""
    return printable(text, length)


def name(text: str) -> str:
    """Show a foreign name, on one line."""
    return cut(text, _NAME_LENGTH)


def sentence(text: str, length: int = _SENTENCE_LENGTH) -> str:
    """Show a foreign sentence, on one line."""
    return cut(" ".join(text.split()), length)


def percent_name(figure: float) -> str:
    """Return `p90`, `p99.9`."""
    return f"p{figure:g}"


def found(latency: Distribution, wanted: float) -> PercentileFigure | None:
    """Return one percentile's figure; None when the distribution has none."""
    return next((figure for figure in latency.percentiles if figure.percent == wanted), None)


def shortage(latency: Distribution, figure: PercentileFigure) -> str:
    """Return why a percentile has no figure."""
    return f"not enough runs for {percent_name(figure.percent)} ({latency.count} of {figure.runs_needed})"


def shortages(latency: Distribution, wanted: Sequence[float]) -> str:
    """Return which of the wanted percentiles have no figure and why, in one sentence; "" when all have one."""
    figures = [figure for each in wanted if (figure := found(latency, each)) is not None and figure.value_ns is None]
    lacking = (f"{percent_name(figure.percent)} ({latency.count} of {figure.runs_needed})" for figure in figures)
    return f"not enough runs for {', '.join(lacking)}" if figures else ""


def bound_sign(figure: PercentileFigure) -> str:
    """Return on which side of its bound the true percentile is."""
    return "≥" if figure.percent < 50 else "≤"  # noqa: PLR2004 - the contract's own limit: p50


def claim(method: Method) -> float | None:
    """Return the percentile that a scenario is judged by; None is judged by throughput."""
    return _CLAIMS[method.scenario]


def runtime(cell: BenchmarkCell, *, short: bool = False) -> str:
    """Return the runtime that ran, with its version; the one that was asked for when none did."""
    if cell.runtime is None:
        asked = cell.configuration.inference.runtime
        return _SHORT_RUNTIME.get(asked, asked) if short else asked
    shown = _SHORT_RUNTIME.get(cell.runtime.name, cell.runtime.name) if short else cell.runtime.name
    return name(shown if short else f"{shown} {cell.runtime.version}")


def choices(configuration: Configuration) -> tuple[str, ...]:
    """Return what a configuration chose otherwise than by default, in words."""
    inference = configuration.inference
    chosen = [f"{inference.num_threads} thread{'' if inference.num_threads == 1 else 's'}"]
    if not inference.xnnpack:
        chosen.append("no XNNPACK")
    if inference.delegate is not None:
        options = "".join(f" {key}={value}" for key, value in sorted(inference.delegate.options.items()))
        chosen.append(name(inference.delegate.library.rsplit("/", 1)[-1] + options))
    if inference.affinity:
        chosen.append(f"CPU {','.join(map(str, inference.affinity))}")
    if configuration.batch > 1:
        chosen.append(f"batch {configuration.batch}")
    return tuple(chosen)


def configuration(cell: BenchmarkCell, *, short: bool = False) -> str:
    """Name a cell by what it ran with: `ai-edge-litert 2.3.0, 4 threads`; short: `litert ×4`."""
    if not short:
        return ", ".join((runtime(cell), *choices(cell.configuration)))
    head = f"{runtime(cell, short=True)} ×{cell.configuration.inference.num_threads}"
    return ", ".join((head, *choices(cell.configuration)[1:]))


def standing(cell: BenchmarkCell) -> Standing:
    """Return whether the figures may be quoted. Wrong answers make them invalid, whatever the board says."""
    if cell.measurement is None:
        return "ERROR"
    valid = cell.measurement.verdict.valid and _right(cell.measurement.correctness)
    return "VALID" if valid else "INVALID"


def reasons(cell: BenchmarkCell) -> tuple[str, ...]:
    """Return why a cell has no figures, or why nobody may quote them."""
    if cell.error is not None:
        return (f"{cell.error.kind}: {sentence(cell.error.message)}",)
    if cell.measurement is None:
        return ()
    given = tuple(sentence(reason) for reason in cell.measurement.verdict.reasons)
    correctness = cell.measurement.correctness
    if not _right(correctness):
        wrong = correctness.goldens_total - correctness.goldens
        given = (*given, f"{wrong} of {correctness.goldens_total} golden vectors were not reproduced")
    return given


def _right(correctness: Correctness) -> bool:
    return correctness.goldens >= correctness.goldens_total


def remarks(cell: BenchmarkCell) -> tuple[str, ...]:
    """Return what else a reader of a cell's figures must know."""
    told = []
    measurement = cell.measurement
    if cell.delegate_reason is not None and (cell.error is None or cell.error.message != cell.delegate_reason):
        told.append(f"delegate: {sentence(cell.delegate_reason)}")
    if measurement is not None:
        if measurement.correctness.goldens_total == 0 and not measurement.correctness.labelled:
            told.append("nobody checked the answers")
        told += [sentence(note) for note in measurement.verdict.notes]
        if measurement.drift.drifting and standing(cell) == "VALID":
            told.append(f"latency drifted by {signed_percent(measurement.drift.change)} over the run")
        if measurement.late:
            told.append(f"{measurement.late} runs began later than the rate wanted")
        if measurement.trials and not any(trial.kept for trial in measurement.trials):
            lowest = min(trial.qps for trial in measurement.trials)
            told.append(f"no rate kept the latency bound, of those tried from {number(lowest)} queries/s on")
    if cell.serving is not None and cell.serving.restarts:
        told.append(f"the model that serves: {serving(cell.serving)}")
    return tuple(told)


def correctness(found: Correctness | None) -> str:
    """Say what the answers were worth: `8/8 goldens, 91.2 % right (912 of 1000)`."""
    if found is None:
        return NOTHING
    said = []
    if found.goldens_total:
        worst = f" within {found.worst_lsb} LSB" if found.worst_lsb else ""
        said.append(f"{found.goldens}/{found.goldens_total} goldens{worst}")
    if accuracy(found) is not None:
        said.append(f"{percent(accuracy(found) or 0.0)} right ({found.right} of {found.labelled})")
    return ", ".join(said) or "unchecked"


def accuracy(found: Correctness) -> float | None:
    """Return the share of labelled samples that were answered rightly; None without labels."""
    return real(found.right) / real(found.labelled) if found.labelled and found.right is not None else None


def short_correctness(found: Correctness | None) -> str:
    """Say in a narrow column what the answers were worth: the accuracy, where there is one."""
    if found is None:
        return NOTHING
    share = accuracy(found)
    goldens = f"{found.goldens}/{found.goldens_total}" if found.goldens_total else "unchecked"
    return goldens if share is None else f"{goldens} {real(share) * 100:.1f}%"


def delegation(cell: BenchmarkCell) -> str:
    """Say how many nodes who took."""
    who = name(cell.delegate_active) if cell.delegate_active else "XNNPACK"
    if cell.nodes_delegated is None or cell.nodes_total is None:
        return name(cell.delegate_active) if cell.delegate_active else ""
    if not cell.nodes_delegated:
        return f"none of {cell.nodes_total} nodes delegated"
    return f"{cell.nodes_delegated} of {cell.nodes_total} nodes by {who}"


def serving(during: ServingDuring) -> str:
    """Say how the model that serves fared meanwhile."""
    said = [_plural(during.results, "result"), _plural(during.errors, "error")]
    for label, now, before in (
        ("p50", during.p50_ns, during.before_p50_ns),
        ("p99", during.p99_ns, during.before_p99_ns),
    ):
        if now is not None:
            said.append(f"{label} {duration(now)}" + ("" if before is None else f" (before {duration(before)})"))
    if during.restarts:
        said.append(f"restarted {during.restarts} times" if during.restarts > 1 else "restarted once")
    return ", ".join(said)


def worst_serving(board: BoardRun) -> str:
    """Say how the model that serves fared during the cell that disturbed it most; "" when nobody watched it."""
    watched = [(each.p99_ns or each.p50_ns or 0, n) for n, c in enumerate(board.cells) if (each := c.serving)]
    during = board.cells[max(watched)[1]].serving if watched else None
    if during is not None and not (during.results or during.errors or during.restarts):
        return "the model that serves: nothing was heard of it meanwhile"
    return "" if during is None else f"the model that serves, at its worst: {serving(during)}"


def when(seconds: float) -> str:
    """Spell a moment in UTC; a date that no calendar has stays a number."""
    try:
        moment = datetime.datetime.fromtimestamp(seconds, tz=datetime.timezone.utc)  # noqa: UP017 - 3.10's spelling too
    except (ValueError, OverflowError, OSError):
        return f"{number(seconds)} s"
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC"


def title(run: Run) -> str:
    """Name a run."""
    return name(run.name) if run.name else f"benchmark {name(run.id)}"


def subject(board: BoardRun) -> str:
    """Name a board with its model."""
    return " ".join(part for part in (name(board.board), name(board.model)) if part)


def tally(run: Run) -> str:
    """Count: `12 cells on 3 boards: 9 valid, 2 invalid, 1 failed`."""
    if run.foreign:
        return f"{_plural(len(run.foreign), 'result')} of {run.tool}, imported"
    standings = [standing(cell) for board in run.boards for cell in board.cells]
    boards = len({board.board for board in run.boards})
    silent = sum(1 for board in run.boards if board.error is not None)
    said = f"{_plural(len(standings), 'cell')} on {_plural(boards, 'board')}: {standings.count('VALID')} valid"
    for word, count in (("invalid", standings.count("INVALID")), ("failed", standings.count("ERROR"))):
        if count:
            said += f", {count} {word}"
    return said + (f"; {_plural(silent, 'board')} did not finish" if silent else "")


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"
