"""What TFLite's `benchmark_model` prints, read back: timings, memory, and the operators' table of its profiler.

The text changed with the years and with where it ran; all of these are understood:
- lines as they are (TF 2.0 to 2.4), behind `INFO: ` (2.5 and later), behind a logging library's prefix (LiteRT), behind
  logcat's, or indented in somebody's notes;
- tables with and without the column `[start]`, and as comma-separated values;
- summaries with and without `p5`, `median` and `p95`;
- LiteRT's program of the same name (2025 and later), which ends with `BENCHMARK RESULTS` in hundredths of milliseconds
  instead of `Inference timings in us`. The summaries before it are finer, and are taken where they are there.

What the program did not print is None: nothing is computed here that it did not say. What it does NOT do: run the
program, or judge its figures.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tflotilla.shared.contract.errors import ContractError

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSummary:
    """A line `count=… first=… …`, in microseconds. Of a single run it says `count` and `curr` only."""

    count: int
    first_us: float | None = None
    curr_us: float | None = None
    min_us: float | None = None
    max_us: float | None = None
    avg_us: float | None = None
    std_us: float | None = None
    p5_us: float | None = None
    median_us: float | None = None
    p95_us: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfileRow:
    """One line of the profiler's table, as printed; times in milliseconds."""

    node_type: str
    first_ms: float
    avg_ms: float
    percent: float
    cumulative_percent: float
    memory_kb: float
    times_called: int
    #: With the brackets and the number that the program puts around and behind it.
    name: str

    @property
    def run_ms(self) -> float:
        """What it takes of a run: `avg_ms` is of one call, and some are called several times a run, or not in each."""
        return self.avg_ms * self.times_called


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchmarkModelOutput:
    """Everything that one run of `benchmark_model` said of itself."""

    #: What stood in `Words: [value]` lines, by the words: `Num threads`, `Graph`, `Use xnnpack` …
    options: Mapping[str, str] = field(default_factory=dict)
    model_size_mb: float | None = None
    init_us: float | None = None
    first_inference_us: float | None = None
    warmup_avg_us: float | None = None
    inference_avg_us: float | None = None
    warmup: RunSummary | None = None
    runs: RunSummary | None = None
    memory_init_mb: float | None = None
    memory_overall_mb: float | None = None
    #: Whether it said that it made XNNPACK's delegate.
    xnnpack: bool = False
    #: Nodes that a delegate took, and all; None when it did not say.
    nodes_delegated: int | None = None
    nodes_total: int | None = None
    #: Options that the program did not know, as it repeated them; empty when it said nothing of the kind.
    unknown_options: str = ""
    #: The decimals of its timings.
    resolution_us: float = 1.0
    #: The profiler's table of the initialization, and of the regular runs, in running order.
    initialization: tuple[ProfileRow, ...] = ()
    operators: tuple[ProfileRow, ...] = ()

    @property
    def graph(self) -> str | None:
        """The model's path, as the program was given it."""
        return self.options.get("Graph")

    @property
    def operators_once(self) -> tuple[ProfileRow, ...]:
        """The operators without the node that runs XNNPACK's or a delegate's, where those are listed one by one."""
        if not any(row.name.startswith(WITHIN_DELEGATE) for row in self.operators):
            return self.operators
        return tuple(row for row in self.operators if not is_delegate(row))

    @property
    def num_threads(self) -> int | None:
        """The threads asked for; None when the program chose."""
        value = self.options.get("Num threads", "")
        return int(value) if re.fullmatch(r"[0-9]{1,9}", value) else None


#: How the program calls what XNNPACK or another delegate does within its node.
WITHIN_DELEGATE = "Delegate/"


def is_delegate(row: ProfileRow) -> bool:
    """Whether the line is a delegate's node; its type is the delegate's name (`TfLiteXNNPackDelegate`)."""
    return "delegate" in row.node_type.lower() and not row.name.startswith(WITHIN_DELEGATE)


#: Of few enough digits to be finite.
_NUMBER = r"-?\d{1,18}(?:\.\d+)?(?:[eE][+-]?\d{1,2})?"
#: `INFO: `, `I0000 00:00:17.2 7 file.cc:12] `, `2020-05-01 10:00:00.1: I a/b.cc:3] `, `05-01 10:00 7 7 I tflite  : `;
#: and where in LiteRT's sources a line comes from: `INFO: [a/b.h:12] `.
_PREFIX = re.compile(
    r"^(?:(?:INFO|VERBOSE|WARNING): |\S.*?\.cc:\d+\] ?|(?:[\d:.\- ]+)?[VDIWE][ /](?:tflite|litert)[^:]*: ?)"
    r"(?:\[\S+\.(?:h|cc):\d+\] ?)?"
)
_OPTION = re.compile(r"^([#A-Za-z][^:\[\]=]*): \[(.*)\]$")
_SIZE = re.compile(rf"^The input model file size \(MB\): ({_NUMBER})$")
_TIMINGS = re.compile(r"^(?:Average i|I)nference timings in us: (.*)$")
_TIMING = re.compile(rf"(Init|First inference|Warmup|Inference|no stats)(?: \(avg\))?: ({_NUMBER})")
_MEMORY = re.compile(r"^(?:Memory footprint delta from the start of the tool|Peak memory footprint) \(MB\): (.*)$")
_FIGURE = re.compile(rf"([a-z0-9]+)=({_NUMBER})")
_SUMMARY = re.compile(r"^count=(\d{1,18}) (.*)$")
_LOADING = re.compile(r"^Loading model from: (\S.*)$")
_UNKNOWN = re.compile(r"^(?:WARN: )?Unconsumed cmdline flags: (.*)$")
#: LiteRT's results; of the deviation it does not say the unit.
_RESULT = re.compile(
    rf"^(Model initialization|(?:Warmup|Inference) \((?:first|avg|min|max|std)\)): +({_NUMBER})(?: ms)?"
    r"(?: \((\d{1,18}) runs\))?$"
)
_FOOTPRINT = re.compile(rf"^(Init|Overall) footprint: +({_NUMBER}) MB$")
_US_PER_MS = 1000
_RESULT_STEP_US = 10.0
_REPLACING = re.compile(r"^Replacing (\d{1,9})(?: out of (\d{1,9}))? node\(s\) with delegate")
_XNNPACK = re.compile(r"XNNPACK delegate for CPU|applied XNNPACK delegate", re.IGNORECASE)
_TITLE = re.compile(r"^=+ ([A-Z].*?) =+$")
_HEADER = re.compile(r"^\[node\s+type\].*\[avg ms\].*\[Name\]$")
_CSV_HEADER = re.compile(r"^node type,.*avg_ms,.*name$")
_START = rf"{_NUMBER}\s+"
_ROW = (
    rf"(?P<first>{_NUMBER})\s+(?P<avg>{_NUMBER})\s+(?P<percent>{_NUMBER})%\s+(?P<cumulative>{_NUMBER})%\s+"
    rf"(?P<memory>{_NUMBER})\s+"
    r"(?P<times>\d{1,9})\s+(?P<name>\S.*)$"
)
_ROWS = {
    False: re.compile(r"^(?P<type>\S.*?)\s+" + _ROW),
    True: re.compile(r"^(?P<type>\S.*?)\s+" + _START + _ROW),
}
_INITIALIZATION = "Profiling Info for Benchmark Initialization:"
_REGULAR = "Profiling Info for Regular Benchmark Runs:"
_RUN_ORDER = "Run Order"


def parse(text: str) -> BenchmarkModelOutput:
    """Read what the program printed.

    Raises:
        ContractError: nothing in it looks like `benchmark_model`.

    """
    lines = [_PREFIX.sub("", line.strip()).strip() for line in text.splitlines()]
    options: dict[str, str] = {}
    figures: dict[str, float] = {}
    summaries: list[RunSummary] = []
    nodes: tuple[int, int | None] | None = None
    xnnpack = False
    unknown = ""
    results: dict[str, float] = {}
    for line in lines:
        if line.startswith(("Timings (microseconds)", "Memory (bytes)")):
            continue  # The profiler's own: of runs that it slowed down.
        if option := _OPTION.match(line):
            options.setdefault(option[1].strip(), option[2])
        elif size := _SIZE.match(line):
            figures["size"] = float(size[1])
        elif timings := _TIMINGS.match(line):
            figures |= {name: float(value) for name, value in _TIMING.findall(timings[1])}
        elif memory := _MEMORY.match(line):
            figures |= {f"memory {name}": float(value) for name, value in _FIGURE.findall(memory[1])}
        elif summary := _SUMMARY.match(line):
            summaries.append(_summary(int(summary[1]), summary[2]))
        elif result := _RESULT.match(line):
            results[result[1]] = float(result[2]) * _US_PER_MS
            results |= {} if result[3] is None else {f"{result[1]} count": int(result[3])}
        elif footprint := _FOOTPRINT.match(line):
            figures[f"memory {footprint[1].lower()}"] = float(footprint[2])
        elif loading := _LOADING.match(line):
            options.setdefault("Graph", loading[1])
        elif told := _UNKNOWN.match(line):
            unknown = told[1]
        elif replacing := _REPLACING.match(line):
            nodes = nodes or (int(replacing[1]), None if replacing[2] is None else int(replacing[2]))
        xnnpack = xnnpack or _XNNPACK.search(line) is not None
    initialization, operators = _tables(lines)
    figures, resolution_us = _with_results(figures, results, summaries)
    inference = figures.get("Inference", figures.get("no stats"))
    if inference is None and not summaries and not operators:
        message = "this is not what benchmark_model prints: neither 'Inference timings in us' nor 'count=' is in it"
        raise ContractError(message)
    return BenchmarkModelOutput(
        options=options,
        model_size_mb=figures.get("size"),
        init_us=figures.get("Init"),
        first_inference_us=figures.get("First inference"),
        warmup_avg_us=figures.get("Warmup"),
        inference_avg_us=inference,
        # A run that was asked for no warm-up prints one summary; one that was broken off in it has no timings.
        warmup=summaries[0] if len(summaries) > 1 else None,
        runs=summaries[-1] if summaries and (len(summaries) > 1 or inference is not None) else None,
        memory_init_mb=figures.get("memory init"),
        memory_overall_mb=figures.get("memory overall"),
        xnnpack=xnnpack,
        nodes_delegated=None if nodes is None else nodes[0],
        nodes_total=None if nodes is None else nodes[1],
        unknown_options=unknown,
        resolution_us=resolution_us,
        initialization=initialization,
        operators=operators,
    )


def _with_results(
    figures: dict[str, float], results: dict[str, float], summaries: list[RunSummary]
) -> tuple[dict[str, float], float]:
    """Add what only LiteRT's results say; without summaries, those that it rounded. Also the figures' decimals."""
    if "Inference (avg)" not in results or "Inference" in figures:
        return figures, 1.0
    finer = bool(summaries)
    if not finer:
        summaries += [_rounded(results, kind) for kind in ("Warmup", "Inference") if f"{kind} (avg) count" in results]
    found = {"Init": results.get("Model initialization"), "Inference": results["Inference (avg)"]}
    if summaries:
        # Of a single run a summary says `curr` only.
        found["Inference"] = _first(summaries[-1].avg_us, summaries[-1].curr_us)
    if len(summaries) > 1:
        found["First inference"] = _first(summaries[0].first_us, summaries[0].curr_us)
        found["Warmup"] = _first(summaries[0].avg_us, summaries[0].curr_us)
    known = {name: value for name, value in found.items() if value is not None}
    return known | figures, 1.0 if finer else _RESULT_STEP_US


def _first(*values: float | None) -> float | None:
    return next((value for value in values if value is not None), None)


def _rounded(results: dict[str, float], kind: str) -> RunSummary:
    return RunSummary(
        count=int(results[f"{kind} (avg) count"]),
        first_us=results.get(f"{kind} (first)"),
        min_us=results.get(f"{kind} (min)"),
        max_us=results.get(f"{kind} (max)"),
        avg_us=results.get(f"{kind} (avg)"),
        std_us=results.get(f"{kind} (std)"),
    )


def _summary(count: int, text: str) -> RunSummary:
    found = {name: float(value) for name, value in _FIGURE.findall(text)}
    return RunSummary(
        count=count,
        first_us=found.get("first"),
        curr_us=found.get("curr"),
        min_us=found.get("min"),
        max_us=found.get("max"),
        avg_us=found.get("avg"),
        std_us=found.get("std"),
        p5_us=found.get("p5"),
        median_us=found.get("median"),
        p95_us=found.get("p95"),
    )


def _tables(lines: list[str]) -> tuple[tuple[ProfileRow, ...], tuple[ProfileRow, ...]]:
    """Return the tables in running order: of the initialization, and of the regular runs.

    Before TF 2.1 there was one table, of the regular runs, and no word in front of it.
    """
    initialization: tuple[ProfileRow, ...] = ()
    operators: tuple[ProfileRow, ...] = ()
    section, title = _REGULAR, ""
    rest = iter(lines)
    for line in rest:
        if line.endswith((_INITIALIZATION, _REGULAR)):
            section = _INITIALIZATION if line.endswith(_INITIALIZATION) else _REGULAR
        elif heading := _TITLE.match(line):
            title = heading[1]
        elif title == _RUN_ORDER and (_HEADER.match(line) or _CSV_HEADER.match(line)):
            rows = tuple(_rows(line, rest))
            title = ""
            if section == _INITIALIZATION:
                initialization = rows
            else:
                operators = operators or rows
    return initialization, operators


def _rows(header: str, rest: Iterator[str]) -> Iterator[ProfileRow]:
    """Yield a table's lines up to the first that is none."""
    columns = [column.strip() for column in header.split(",")]
    for line in rest:
        row = _csv_row(columns, line) if _CSV_HEADER.match(header) else _text_row(line, start="[start]" in header)
        if row is None:
            return
        yield row


def _text_row(line: str, *, start: bool) -> ProfileRow | None:
    found = _ROWS[start].match(line)
    if found is None:
        return None
    return ProfileRow(
        node_type=found["type"],
        first_ms=float(found["first"]),
        avg_ms=float(found["avg"]),
        percent=float(found["percent"]),
        cumulative_percent=float(found["cumulative"]),
        memory_kb=float(found["memory"]),
        times_called=int(found["times"]),
        name=found["name"],
    )


def _csv_row(columns: list[str], line: str) -> ProfileRow | None:
    """Read a line of values; a type may hold commas (`Convolution (NHWC, QU8) GEMM`), the columns behind it not."""
    cells = line.split(",")
    surplus = len(cells) - len(columns)
    if surplus < 0:
        return None
    values = dict(zip(columns, [",".join(cells[: surplus + 1]), *cells[surplus + 1 :]], strict=True))
    try:
        return ProfileRow(
            node_type=values["node type"].strip(),
            first_ms=_number(values["first"]),
            avg_ms=_number(values["avg_ms"]),
            percent=_number(values["%"]),
            cumulative_percent=_number(values["cdf%"]),
            memory_kb=_number(values["mem KB"]),
            times_called=int(_number(values["times called"])),
            # The program writes a comma in a name as a tab.
            name=values["name"].strip().replace("\t", ","),
        )
    except (ValueError, KeyError):
        return None


def _number(cell: str) -> float:
    """Read a number or a percentage. Raises ValueError for what else `float` takes: nan, inf."""
    text = cell.strip().removesuffix("%")
    if re.fullmatch(_NUMBER, text) is None:
        message = f"{text!r} is no number"
        raise ValueError(message)
    return float(text)
