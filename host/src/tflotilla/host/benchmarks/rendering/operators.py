"""An operator profile in the columns of `benchmark_model`, and summed by node type: values in, rows of words out.

Rule: how the times were found out stands beside them; shares are of the operators' sum, each as
often as a run calls it, and how far that is from the
whole model's time is said. What it does NOT do: measure or correct anything.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tflotilla.host.benchmarks.rendering import words

if TYPE_CHECKING:
    from tflotilla.shared.contract.benchmark import OperatorProfile, OperatorTime

COLUMNS = ("node type", "first, ms", "avg, ms", "%", "cumulative %", "called", "name")
FIGURES = ("first, ms", "avg, ms", "%", "cumulative %", "called")
SUMMARY_COLUMNS = ("node type", "count", "avg, ms", "%", "cumulative %", "called")
SUMMARY_FIGURES = ("count", "avg, ms", "%", "cumulative %", "called")

_NOTE_LENGTH = 1500

_HOW = {
    "prefix_difference": "timed by difference: graphs that end with and before each operator, not by a profiler",
    "benchmark_model": "timed by benchmark_model's profiler",
}


def rows(profile: OperatorProfile) -> tuple[tuple[str, ...], ...]:
    """Return the operators in the order in which they run, with running shares."""
    total = _total(profile)
    found = []
    so_far = 0.0
    for each in profile.operators:
        in_a_run = _run_ms(each)
        so_far += in_a_run
        found.append(
            (
                words.name(each.node_type),
                words.number(each.first_ms),
                words.number(words.real(each.avg_ms)),
                _share(in_a_run, total),
                _share(so_far, total),
                str(each.times_called),
                words.name(each.name),
            )
        )
    return tuple(found)


def summary(profile: OperatorProfile) -> tuple[tuple[str, ...], ...]:
    """Return the times by node type, most first."""
    total = _total(profile)
    times: dict[str, list[float]] = {}
    called: dict[str, int] = {}
    for each in profile.operators:
        times.setdefault(each.node_type, []).append(_run_ms(each))
        called[each.node_type] = called.get(each.node_type, 0) + each.times_called
    found = []
    so_far = 0.0
    for node_type, values in sorted(times.items(), key=lambda item: (-sum(item[1]), item[0])):
        so_far += sum(values)
        found.append(
            (
                words.name(node_type),
                str(len(values)),
                words.number(sum(values)),
                _share(sum(values), total),
                _share(so_far, total),
                str(called[node_type]),
            )
        )
    return tuple(found)


def how(profile: OperatorProfile) -> str:
    """Say how the times were found out, and how near their sum comes to the whole model's time."""
    total, whole = _total(profile), words.real(profile.whole_ms)
    near = f"the sum is {words.number(total)} ms, the whole model {words.number(whole)} ms"
    # Of differences the note says how near they come: with what a call takes that is no operator's.
    if whole > 0 and profile.method == "benchmark_model":
        near += f" ({words.off(total, whole)})"
    said = f"{_HOW[profile.method]}; XNNPACK {'on' if profile.xnnpack else 'off'}; {near}"
    note = words.sentence(profile.note, _NOTE_LENGTH)
    return f"{said}. {note}" if note else said


def _total(profile: OperatorProfile) -> float:
    return sum(_run_ms(each) for each in profile.operators)


def _run_ms(operator: OperatorTime) -> float:
    """Return what it takes of a run; the column is of a call, as `benchmark_model` has it."""
    return words.real(operator.avg_ms) * words.real(operator.times_called)


def _share(part: float, total: float) -> str:
    return f"{100 * part / total:.2f}" if total > 0 else words.NOTHING
