"""What heat does: the model runs on without a pause, and its median latency and the processor are written down.

What it does NOT do: judge. A board that becomes slower here is as it is; the cold figures are the timed pass's.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from tflotilla.device.benchmark import loops
from tflotilla.shared.contract.benchmark import CoursePoint, SustainedFigures
from tflotilla.shared.statistics import percentile

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tflotilla.device.benchmark.loops import Calls, Clock
    from tflotilla.shared.contract.benchmark import BoardReading

#: The course has so many points at least, and at most; between, one for each of so many seconds.
_LEAST_PARTS, _MOST_PARTS, _PART_S = 10, 120, 5.0
#: The last fifth is what does not change any more.
_STEADY = 5


def run(
    calls: Calls,
    inputs: Iterator[Any],
    seconds: float,
    *,
    cold_p50_ns: int,
    read: Callable[[float], BoardReading],
    begins: Callable[[float, float], None] = lambda _at_s, _part_s: None,
    clock: Clock = time.perf_counter_ns,
) -> SustainedFigures:
    """Run on for so long.

    Args:
        calls: what a run is made of.
        inputs: an endless rotation, as `calls.put` takes them.
        seconds: how long.
        cold_p50_ns: what to hold the end against.
        read: gives the board at so many seconds from the beginning.
        begins: hears of each part of the course: when it begins, and how long it takes.
        clock: nanoseconds.

    """
    parts = min(_MOST_PARTS, max(_LEAST_PARTS, round(seconds / _PART_S)))
    begin = clock()
    course = []
    for number in range(parts):
        begins((clock() - begin) / loops.NS, seconds / parts)
        rest_ns = max(0, begin + int(seconds * loops.NS * (number + 1) / parts) - clock())
        record = loops.run(calls, inputs, loops.Limits(min_runs=1, min_ns=rest_ns, max_ns=rest_ns), clock=clock)
        at_s = (clock() - begin) / loops.NS
        reading = read(at_s)
        course.append(
            CoursePoint(
                at_s=round(at_s, 3),
                p50_ns=percentile(sorted(record.invokes), 50),
                temperature_c=reading.temperature_c,
                frequency_khz=max(reading.frequencies_khz, default=None),
            )
        )
    last = sorted(point.p50_ns for point in course[-max(1, parts // _STEADY) :])
    return SustainedFigures(
        seconds=(clock() - begin) / loops.NS,
        cold_p50_ns=cold_p50_ns,
        steady_p50_ns=percentile(last, 50),
        course=tuple(course),
    )
