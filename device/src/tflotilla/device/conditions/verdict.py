"""Decides, from values alone, whether a cell's figures may be quoted.

Rules it keeps: each reason is one sentence with its figures; what could not be checked is a note and never taken for
good; what happened before the cell (bits since boot) is a note as well.
What it does NOT do: read anything, or judge answers: a cell with wrong ones has no figures.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tflotilla.device.conditions.throttling import BOOT_SHIFT, NOW, names
from tflotilla.shared.contract.benchmark import Verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tflotilla.device.conditions.watch import Evidence
    from tflotilla.shared.contract.benchmark import BoardReading, Distribution, Drift, Method, Scenario

#: What each scenario is quoted by (MLPerf LoadGen); Offline has a rate, which needs a median of its queries at least.
QUOTED: dict[Scenario, float] = {"single_stream": 90, "multi_stream": 99, "offline": 50, "server": 99}
#: Frequencies that differ by more moved. Turbo bins of a steady x86 core differ by less.
FREQUENCY_TOLERANCE = 0.05
#: Runs that began late, of all.
LATE_TOLERANCE = 0.01
CLOCK_TOLERANCE = 0.002
SUSPENDED_TOLERANCE_S = 0.01
QUOTA_TOLERANCE = 0.001
#: Some pages of programs are touched for the first time after all.
DISK_FAULTS = 100
#: So much swapped is more than the kernel's tidying up.
SWAPPED_BYTES = 1 << 20
#: A board that can't say that it was slowed down is doubted from here: Raspberry Pi's limit, and that of many others.
HOT_C = 80.0
#: Sensors count in steps of half a degree and more.
COOL_TOLERANCE_C = 1.0
#: Less than that is a rounding of the kernel's ticks (10 ms each), which matters for short runs only.
_TICKS_S = 0.025
ASK_FIRMWARE = "the firmware could not be asked (add the agent's user to the group video)"
_PAGE_BYTES = 4096
_NAMED = 3
_MIB = 1 << 20


def judge(evidence: Evidence, *, method: Method, latency: Distribution, drift: Drift, late: int = 0) -> Verdict:
    """Return the verdict on one cell; `latency` is of what the scenario is quoted by."""
    reasons = (
        *_runs(method, latency, late),
        *_throttling(evidence),
        *_cooling(evidence),
        *_frequency(evidence),
        *_heat(evidence, method),
        *_others(evidence, method),
        *_swapping(evidence),
        *_clock(evidence),
        *_drift(evidence, drift),
    )
    return Verdict(valid=not reasons, reasons=reasons, notes=tuple(_notes(evidence, method)))


def _runs(method: Method, latency: Distribution, late: int) -> Iterator[str]:
    percent = QUOTED[method.scenario]
    figure = next((figure for figure in latency.percentiles if figure.percent == percent), None)
    if figure is not None and latency.count < figure.runs_needed:
        searching = method.scenario == "server" and method.qps is None
        other = "the bound could not be kept, which ends a rate's trial" if searching else "fewer were asked for"
        yield (
            f"too few runs for p{percent:g} ({latency.count} of {figure.runs_needed}): "
            f"{method.max_seconds:g} s were not enough for more, or {other}"
        )
    if latency.count and late > LATE_TOLERANCE * latency.count:
        rate = f"{method.rate_hz:g} runs a second" if method.rate_hz else "the rate"
        yield f"{late} of {latency.count} runs began late: the board doesn't keep up with {rate}"


def _throttling(evidence: Evidence) -> Iterator[str]:
    """Bits that mean now count at any reading; those since boot when they came up while the cell ran."""
    for reading in _readings(evidence):
        bits = reading.throttled or 0
        if bits & NOW:
            yield f"the firmware slowed the processor down {_when(reading)} (0x{bits:x}: {names(bits & NOW)})"
            return
    before, after = evidence.conditions.before.throttled, evidence.conditions.after.throttled
    if before is not None and after is not None and (came := (after & ~before) >> BOOT_SHIFT & NOW):
        told = f"0x{after:x}, before 0x{before:x}: {names(came)}"
        yield f"the firmware slowed the processor down during the runs ({told})"
    if evidence.throttle_events:
        yield f"the processor was slowed down for heat {_times(evidence.throttle_events)} during the runs"


def _cooling(evidence: Evidence) -> Iterator[str]:
    active = [reading for reading in _readings(evidence) if reading.cooling]
    if active:
        worst = max(active, key=lambda reading: reading.cooling or 0)
        yield f"the kernel slowed the processor down for heat (cooling state {worst.cooling} {_when(worst)})"


def _frequency(evidence: Evidence) -> Iterator[str]:
    span = evidence.frequency
    if span and span.highest_khz - span.lowest_khz > FREQUENCY_TOLERANCE * span.highest_khz:
        governor = evidence.conditions.after.governor
        cure = f"; the governor is {governor}, `performance` holds it" if governor not in {None, "performance"} else ""
        yield f"the frequency moved between {span.lowest_khz / 1000:g} and {span.highest_khz / 1000:g} MHz{cure}"


def _heat(evidence: Evidence, method: Method) -> Iterator[str]:
    before = evidence.conditions.before.temperature_c
    if method.cool_to_c is not None and before is not None and before > method.cool_to_c + COOL_TOLERANCE_C:
        yield (
            f"the processor began at {before:.1f} °C instead of {method.cool_to_c:g} °C, "
            f"after {evidence.conditions.cooled_s:.0f} s of waiting"
        )
    hottest = _hottest(evidence)
    if hottest is not None and hottest >= HOT_C and not _tells_throttling(evidence):
        yield (
            f"the processor reached {hottest:.1f} °C, where boards slow down (from {HOT_C:g} °C), "
            "and this one can't say whether it did"
        )


def _others(evidence: Evidence, method: Method) -> Iterator[str]:
    conditions = evidence.conditions
    limit = method.max_other_cpu_percent

    def counts(percent: float) -> bool:
        return percent > limit and percent / 100 * evidence.seconds > _TICKS_S

    loud = [load for load in conditions.others if counts(load.cpu_percent)]
    if loud:
        named = ", ".join(f"{load.name} ({load.pid}) {load.cpu_percent:.0f} %" for load in loud[:_NAMED])
        more = f" and {len(loud) - _NAMED} more" if len(loud) > _NAMED else ""
        many = "another process" if len(loud) == 1 else "other processes"
        yield f"{many} took more than {limit:g} % of a core: {named}{more}"
    if conditions.other_cpu_percent is not None:
        hidden = conditions.other_cpu_percent - sum(load.cpu_percent for load in conditions.others)
        if counts(hidden):
            yield (
                f"what else ran (small, short or hidden processes, the kernel) took {hidden:.0f} % of a core, "
                f"more than {limit:g} %"
            )
    stopped_us = evidence.quota_stopped_us or 0
    if stopped_us > QUOTA_TOLERANCE * evidence.seconds * 1e6:
        yield f"a CPU quota of this process' control group stopped it for {stopped_us / 1e6:.2f} s during the runs"


def _swapping(evidence: Evidence) -> Iterator[str]:
    swapped = (evidence.pages_swapped or 0) * _PAGE_BYTES
    if evidence.pages_swapped is None:
        used = [reading.swap_used_bytes for reading in _readings(evidence) if reading.swap_used_bytes is not None]
        swapped = max(used) - used[0] if used else 0
    if swapped > SWAPPED_BYTES:
        yield f"the board swapped {swapped / _MIB:.1f} MiB during the runs: memory is short"
    if evidence.disk_faults > DISK_FAULTS:
        yield f"{evidence.disk_faults} times a run waited for the disk to give back what was in memory: it is short"


def _clock(evidence: Evidence) -> Iterator[str]:
    bend = evidence.clock.bend
    if bend is not None and abs(bend) > CLOCK_TOLERANCE:
        what = "fast" if bend > 0 else "slow"
        yield (f"the clock went {abs(bend) * 100:.1f} % too {what}, as the time is being set; wait until it is right")
    if evidence.clock.suspended_s > SUSPENDED_TOLERANCE_S:
        yield f"the board was suspended for {evidence.clock.suspended_s:.1f} s during the runs"


def _drift(evidence: Evidence, drift: Drift) -> Iterator[str]:
    if not drift.drifting:
        return
    way = "slower" if drift.change > 0 else "faster"
    first, last = evidence.conditions.before.temperature_c, evidence.conditions.after.temperature_c
    heat = (
        f", while the processor went from {first:.1f} to {last:.1f} °C"
        if first is not None and last is not None
        else ""
    )
    yield f"runs became {abs(drift.change) * 100:.1f} % {way} from beginning to end (p = {drift.p_value:.2g}){heat}"


def _notes(evidence: Evidence, method: Method) -> Iterator[str]:
    """Say what nobody knows, and what is no reason."""
    conditions = evidence.conditions
    readings = _readings(evidence)
    if not _tells_throttling(evidence):
        why = ASK_FIRMWARE if _is_raspberry_pi(evidence) else "this board has no counter of it and no cooling device"
        yield f"not checked: whether the processor was slowed down; {why}"
    elif conditions.after.throttled is not None and not evidence.firmware_answered:
        yield f"the throttling bits are what the kernel heard last, and always 0 on some kernels; {ASK_FIRMWARE}"
    before = conditions.before.throttled
    if before is not None and before >> BOOT_SHIFT & NOW:
        past = names(before >> BOOT_SHIFT & NOW)
        said = f"before the runs, since boot, the firmware reported: {past} (0x{before:x})"
        blind = all(reading.throttled is None for reading in conditions.during)
        yield f"{said}; that it came again could be missed, as these bits stay set until a reboot" if blind else said
    if evidence.frequency is None:
        yield "not checked: the processor's frequency, which this board doesn't tell"
    if all(reading.temperature_c is None for reading in readings):
        wanted = f", so it was not cooled to {method.cool_to_c:g} °C" if method.cool_to_c is not None else ""
        yield f"not checked: the temperature, which this board doesn't tell{wanted}"
    if conditions.other_cpu_percent is None:
        yield "not checked: what all other processes took, which the kernel doesn't tell here"
    if evidence.pages_swapped is None and all(reading.swap_used_bytes is None for reading in readings):
        yield "not checked: swapping, which the kernel doesn't tell here"


def _readings(evidence: Evidence) -> tuple[BoardReading, ...]:
    conditions = evidence.conditions
    return (conditions.before, *conditions.during, conditions.after)


def _tells_throttling(evidence: Evidence) -> bool:
    known: Callable[[BoardReading], bool] = lambda reading: reading.throttled is not None or reading.cooling is not None  # noqa: E731
    return evidence.throttle_events is not None or any(known(reading) for reading in _readings(evidence))


def _is_raspberry_pi(evidence: Evidence) -> bool:
    return (evidence.machine or "").startswith("Raspberry Pi")


def _hottest(evidence: Evidence) -> float | None:
    known = [reading.temperature_c for reading in _readings(evidence) if reading.temperature_c is not None]
    return max(known, default=None)


def _when(reading: BoardReading) -> str:
    return "before the first run" if reading.at_s < 0 else f"at {reading.at_s:.1f} s"


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"
