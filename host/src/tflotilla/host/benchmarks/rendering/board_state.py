"""A board's state and a run's method as rows of words: what a figure was measured under, how, and with what.

Rule: what a board can't tell is left out of the rows, never shown as if it were fine. What it does NOT do: judge; the
board's verdict stands in the cell.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tflotilla.host.benchmarks.rendering import words

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from tflotilla.host.benchmarks.results import BoardRun
    from tflotilla.shared.contract.benchmark import (
        BoardReading,
        Conditions,
        CoursePoint,
        Measurement,
        Method,
        SustainedFigures,
    )

Row = tuple[str, str]

#: Bits of `vcgencmd get_throttled` (Raspberry Pi documentation); those since boot are 16 higher.
_THROTTLED = {0: "under-voltage", 1: "frequency capped", 2: "throttled", 3: "soft temperature limit"}
_SINCE_BOOT = 16


def throttled(bits: int) -> str:
    """Spell `get_throttled` bits, those of now apart from those since boot."""
    said = []
    for label, shift in (("now", 0), ("since boot", _SINCE_BOOT)):
        names = [word for bit, word in _THROTTLED.items() if bits >> (bit + shift) & 1]
        if names:
            said.append(f"{label}: {', '.join(names)}")
    return f"{words.real(bits):.0f}" if bits < 0 else f"0x{bits & 0xFFFFFFFF:x} ({'; '.join(said) or 'never'})"


def frequencies(khz: Sequence[int]) -> str:
    """Spell the cores' frequencies in MHz: one figure when all run alike."""
    if not khz:
        return ""
    low, high = words.real(min(khz)) / 1e3, words.real(max(khz)) / 1e3
    return f"{low:,.0f} MHz" if low == high else f"{low:,.0f} to {high:,.0f} MHz"


def conditions(found: Conditions) -> tuple[tuple[str, str, str, str], ...]:
    """Return rows of what, before, during, after; without what the board can't tell."""
    rows = []
    spelled: dict[str, Callable[[BoardReading], str]] = {
        "processor temperature": lambda reading: _celsius(reading.temperature_c),
        "frequency": lambda reading: frequencies(reading.frequencies_khz),
        "governor": lambda reading: words.name(reading.governor or ""),
        "throttled": lambda reading: "" if reading.throttled is None else throttled(reading.throttled),
        "cooling devices": lambda reading: _cooling(reading.cooling),
        "load, 1 min": lambda reading: "" if reading.load_1min is None else words.number(reading.load_1min),
        "swap used": lambda reading: _size(reading.swap_used_bytes),
        "memory available": lambda reading: _size(reading.memory_available_bytes),
    }
    for what, spell in spelled.items():
        before, after = spell(found.before), spell(found.after)
        during = _span(what, found.during) if found.during else ""
        during = during or _several([spell(reading) for reading in found.during])
        if before or during or after:
            rows.append((what, before, during, after))
    return tuple(rows)


def heat(found: SustainedFigures) -> tuple[Row, ...]:
    """Return what the processor was like in the first and the last part of a sustained run, where it tells."""
    if not found.course:
        return ()
    first, last = found.course[0], found.course[-1]
    spelled: dict[str, Callable[[CoursePoint], str]] = {
        "temperature": lambda point: _celsius(point.temperature_c),
        "frequency": lambda point: frequencies([point.frequency_khz] if point.frequency_khz else []),
    }
    return tuple(
        (what, f"{spell(first)} at first, {spell(last)} at last")
        for what, spell in spelled.items()
        if spell(first) and spell(last)
    )


def others(found: Conditions) -> tuple[Row, ...]:
    """Return what else ran, and how much of a core it took."""
    rows = [
        (f"{words.name(each.name)} (pid {each.pid})", f"{words.number(each.cpu_percent)} %") for each in found.others
    ]
    if found.other_cpu_percent is not None:
        rows.append(("everything but the cell", f"{words.number(found.other_cpu_percent)} %"))
    return tuple(rows)


def _celsius(value: float | None) -> str:
    return "" if value is None else f"{words.number(value)} °C"


def _cooling(state: int | None) -> str:
    if state is None:
        return ""
    return "off" if state == 0 else f"state {state}"


def _size(size_bytes: int | None) -> str:
    return "" if size_bytes is None else "0" if size_bytes == 0 else words.mebibytes(size_bytes)


def _span(what: str, readings: Sequence[BoardReading]) -> str:
    """Return the range of what is a figure; nothing for the rest."""
    if what == "frequency":
        return frequencies([khz for reading in readings for khz in reading.frequencies_khz])
    picked = {
        "processor temperature": ([r.temperature_c for r in readings], _celsius),
        "load, 1 min": ([r.load_1min for r in readings], words.number),
    }.get(what)
    values = [value for value in picked[0] if value is not None] if picked else []
    if not picked or not values:
        return ""
    low, high = (picked[1](value) for value in (min(values), max(values)))
    return low if low == high else f"{low} to {high}"


def _several(said: Sequence[str]) -> str:
    different = [each for each in dict.fromkeys(said) if each]
    return different[0] if len(different) == 1 else f"{different[0]} … {different[-1]}" if different else ""


def figures(measurement: Measurement) -> tuple[Row, ...]:
    """Return the figures that are no percentiles."""
    load = measurement.load
    rows: list[Row] = [
        ("runs", f"{measurement.runs:,} in {words.number(measurement.seconds)} s"),
        ("throughput", f"{words.number(measurement.samples_per_second)} samples/s"),
    ]
    if measurement.qps is not None:
        rows.append(("highest rate within the bound", f"{words.number(measurement.qps)} queries/s"))
    if measurement.cpu_seconds_per_inference:
        rows.append(("CPU time per inference", words.duration(words.real(measurement.cpu_seconds_per_inference) * 1e9)))
    if measurement.peak_rss_bytes:
        rows.append(("peak RSS", words.mebibytes(measurement.peak_rss_bytes)))
    steps = (
        ("import", load.import_ns),
        ("load", load.load_ns),
        ("delegate", load.delegate_ns),
        ("allocate", load.allocate_ns),
        ("first inference", load.first_inference_ns),
    )
    rows += [(step, words.duration(value)) for step, value in steps if value]
    drift = measurement.drift
    rows.append(
        (
            "drift over the run",
            f"{words.signed_percent(drift.change)}, p = {words.real(drift.p_value):.2g}"
            + (", drifting" if drift.drifting else ""),
        )
    )
    harness = measurement.harness
    if harness.loop_ns or harness.clock_ns:
        cost = f"{words.duration(harness.loop_ns)} loop, {words.duration(harness.clock_ns)} clock"
        rows.append(("cost of measuring, per run", f"{cost}: {words.number(harness.share * 100)} % of invoke"))
    if measurement.conditions.cooled_s:
        rows.append(("waited for the board to cool", f"{words.number(measurement.conditions.cooled_s)} s"))
    if measurement.late:
        rows.append(("runs that began late", f"{measurement.late:,}"))
    return tuple(rows)


def method(found: Method) -> tuple[Row, ...]:
    """Return how a cell was measured, with everything that is needed to do it again."""
    return tuple(_method(found))


def _method(found: Method) -> Iterator[Row]:
    yield "scenario", _scenario(found)
    yield "warm-up", f"at least {found.warmup_runs:,} runs and {found.warmup_seconds:g} s"
    yield (
        "timed",
        f"at least {found.min_runs:,} runs and {found.min_seconds:g} s, at most {found.max_seconds:g} s",
    )
    if found.rate_hz is not None:
        yield "rate", f"{found.rate_hz:g} runs/s"
    if found.run_delay_seconds:
        yield "pause after each run", f"{found.run_delay_seconds:g} s"
    inputs = f"{found.inputs}, {found.input_count} in turn"
    yield "inputs", inputs if found.samples is None else f"{inputs}, sha256 {words.name(found.samples)[:12]}"
    yield "seed", str(found.seed)
    if found.cool_to_c is not None:
        yield "cooled before each cell to", f"{found.cool_to_c:g} °C, for at most {found.cool_seconds:g} s"
    if found.sustained_seconds is not None:
        yield "sustained", f"{found.sustained_seconds:g} s"
    yield "another process may take", f"{found.max_other_cpu_percent:g} % of a core"
    if found.max_rss_mib is not None:
        yield "memory limit", f"{found.max_rss_mib:g} MiB"


def _scenario(found: Method) -> str:
    shown = words.SCENARIOS[found.scenario]
    if found.scenario == "single_stream":
        return f"{shown}: one sample after the other, judged by p90"
    if found.scenario == "multi_stream":
        return f"{shown}: queries of {found.samples_per_query} samples, judged by p99"
    if found.scenario == "offline":
        return f"{shown}: all samples at once, judged by samples/s"
    rate = "the highest rate searched" if found.qps is None else f"{found.qps:g} queries/s"
    bound = "" if found.latency_bound_ms is None else f", p99 within {found.latency_bound_ms:g} ms"
    return f"{shown}: Poisson arrivals, {rate}{bound}; latency from the scheduled arrival"


def identity(board: BoardRun) -> tuple[Row, ...]:
    """Return what was measured where."""
    return tuple((what, said) for what, said in _identity(board) if said)


def _identity(board: BoardRun) -> Iterator[Row]:
    found = board.identity
    if found is None:
        return
    facts = found.facts
    yield "board", words.name(found.board)
    yield "hardware", words.name(facts.model or "")
    yield "revision", words.name(found.revision or "")
    yield "processor", f"{words.name(facts.arch)}, {facts.cores} cores"
    yield "RAM", words.mebibytes(facts.ram_bytes)
    yield "kernel", words.name(facts.kernel)
    yield "clock source", words.name(found.clock_source or "")
    yield "distribution", words.name(facts.distribution or "")
    yield "libc", words.name(facts.libc or "")
    yield "Python", words.name(facts.python)
    yield "numpy", words.name(found.numpy)
    yield "runtimes", ", ".join(words.name(str(each)) for each in facts.runtimes)
    yield "agent", words.name(found.agent_version)
    yield "model", words.name(found.title)
    yield "model's sha256", words.cut(found.model_sha256, 64)
    yield "bundle", words.cut(found.bundle, 80)
