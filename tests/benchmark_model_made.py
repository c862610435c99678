"""What `benchmark_model` prints, in the shapes that its versions gave it; figures of a small made-up network.

The words, columns and widths are the program's; `stands_in` writes a program that prints one of these, for the tests of
what calls it.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

_RULE = "=" * 30
_COLUMNS = (
    "\t             [node type]\t{start}  [first]\t [avg ms]\t     [%]\t  [cdf%]\t  [mem KB]\t[times called]\t[Name]\n"
)


def _table(title: str, rows: list[str], *, start: bool = False) -> str:
    return f"{_RULE} {title} {_RULE}\n" + _COLUMNS.format(start="  [start]\t" if start else "") + "".join(rows) + "\n"


def _row(node_type: str, first: float, percent: float, cumulative: float, name: str) -> str:
    return (
        f"\t{node_type:>24}\t{{start}}{first:9.3f}\t{percent / 40:9.3f}\t{percent:7.3f}%\t{cumulative:7.3f}%\t"
        f"     0.000\t        1\t{name}\n"
    )


_CONV = _row("CONV_2D", 2.113, 80, 80, "[net/conv/Relu]:0")
_POOL = _row("AVERAGE_POOL_2D", 0.251, 10, 90, "[net/pool/AvgPool]:1")
_SOFTMAX = _row("SOFTMAX", 0.249, 10, 100, "[net/a;net/b, out]:2")
_ALLOCATE = _row("AllocateTensors", 0.102, 100, 100, "AllocateTensors/0")
_AFTER = """Number of nodes executed: 3
============================== Summary by node type ==============================
\t             [Node type]\t  [count]\t  [avg ms]\t    [avg %]\t    [cdf %]\t  [mem KB]\t[times called]
\t                 CONV_2D\t        1\t     2.000\t    80.000%\t    80.000%\t     0.000\t        1
\t         AVERAGE_POOL_2D\t        1\t     0.250\t    10.000%\t    90.000%\t     0.000\t        1
\t                 SOFTMAX\t        1\t     0.250\t    10.000%\t   100.000%\t     0.000\t        1

Timings (microseconds): count=50 first=2613 curr=2500 min=2480 max=2700 avg=2510 std=30
Memory (bytes): count=0
3 nodes observed

"""


def _plain_table(*, start: bool) -> str:
    place = "    0.000\t" if start else ""
    rows = [row.format(start=place) for row in (_CONV, _POOL, _SOFTMAX)]
    return _table("Run Order", rows, start=start) + _table("Top by Computation Time", rows, start=start) + _AFTER


_BEGIN = """STARTING!
Log parameter values verbosely: [0]
Num threads: [4]
Graph: [/models/my net.tflite]
Enable op profiling: [1]
#threads used for CPU inference: [4]
Loaded model /models/my net.tflite
The input model file size (MB): 3.67827
Initialized session in 18.777ms.
Running benchmark for at least 1 iterations and at least 0.5 seconds but terminate if exceeding 150 seconds.
count=190 first=6479 curr=2562 min=2487 max=6583 avg=2775.82 std=406

Running benchmark for at least 50 iterations and at least 1 seconds but terminate if exceeding 150 seconds.
"""
_TIMINGS = """
Inference timings in us: Init: 18777, First inference: 6479, Warmup (avg): 2775.82, Inference (avg): 2504.32
Note: as the benchmark tool itself affects memory footprint, the following is only APPROXIMATE to the actual memory \
footprint of the model at runtime. Take the information at your discretion.
"""

#: TF 2.0 to 2.4: bare lines, a column [start].
WITH_START = (
    _BEGIN
    + "count=399 first=2581 curr=2509 min=2453 max=2657 avg=2504.32 std=16\n"
    + _TIMINGS
    + "Peak memory footprint (MB): init=8.97656 overall=18.7227\nProfiling Info for Benchmark Initialization:\n"
    + _table("Run Order", [_ALLOCATE.format(start="    0.000\t")], start=True)
    + "Operator-wise Profiling Info for Regular Benchmark Runs:\n"
    + _plain_table(start=True)
)


def _logged(text: str, prefix: str) -> str:
    """Put a logger's prefix before what is a message of its own: not before the lines of a table."""
    lines = text.splitlines()
    return "".join(f"{prefix}{line}\n" if line and line[0] not in "\t=" else f"{line}\n" for line in lines)


_MODERN = (
    _BEGIN
    + "count=399 first=2581 curr=2509 min=2453 max=2657 avg=2504.32 std=16 p5=2470 median=2501 p95=2590\n"
    + _TIMINGS
    + "Memory footprint delta from the start of the tool (MB): init=8.45312 overall=10.5898\n"
)
_MODERN_TABLES = (
    "Profiling Info for Benchmark Initialization:\n"
    + _table("Run Order", [_ALLOCATE.format(start="")])
    + "Operator-wise Profiling Info for Regular Benchmark Runs:\n"
    + _plain_table(start=False)
)
#: TF 2.5 and later.
INFO = _logged(_MODERN + _MODERN_TABLES, "INFO: ")
#: LiteRT's builds, whose logging says where and when.
LOGGED = _logged(_MODERN + _MODERN_TABLES, "I0000 00:00:1753781024.123456    4242 benchmark_model.cc:277] ")
#: An Android phone's log.
LOGCAT = _logged(_MODERN, "05-21 10:11:12.345  4242  4242 I tflite  : ")

#: XNNPACK profiled: its own operators, and the node that runs them all once more.
XNNPACK = (
    _logged(
        _MODERN.replace(
            "The input model",
            "Created TensorFlow Lite XNNPACK delegate for CPU.\n"
            "Replacing 2 out of 3 node(s) with delegate (TfLiteXNNPackDelegate) node, yielding 2 partitions.\n"
            "The input model",
        ),
        "INFO: ",
    )
    + "INFO: Operator-wise Profiling Info for Regular Benchmark Runs:\n"
    + _table(
        "Run Order",
        [
            "\t       Convolution (NHWC, QU8) IGEMM\t    1.967\t    1.900\t 42.222%\t 42.222%\t     0.000\t        1\t"
            "Delegate/Convolution (NHWC, QU8) IGEMM:0\n",
            "\t Average Pooling (NHWC, QU8)\t    0.300\t    0.300\t  6.667%\t 48.889%\t     0.000\t        1\t"
            "Delegate/Average Pooling (NHWC, QU8):1\n",
            "\t       TfLiteXNNPackDelegate\t    2.101\t    2.050\t 45.556%\t 94.444%\t     0.000\t        1\t"
            "[net/pool/AvgPool]:3\n",
            "\t                 SOFTMAX\t    0.249\t    0.250\t  5.556%\t100.000%\t     0.000\t        1\t[out]:2\n",
        ],
    )
)

#: LiteRT's program of the same name: results in words of its own, which name their source; lines without a title; an
#: operator that is called twice a run, and one that is called now and then.
LITERT_RESULTS = _logged(
    """[litert/tools/benchmark_litert_model.h:81] \n========== BENCHMARK RESULTS ==========
[litert/tools/benchmark_litert_model.h:82] Model initialization: 18.78 ms
[litert/tools/benchmark_litert_model.h:84] Warmup (first):       6.48 ms
[litert/tools/benchmark_litert_model.h:86] Warmup (avg):         2.78 ms (190 runs)
[litert/tools/benchmark_litert_model.h:88] Inference (avg):      2.50 ms (399 runs)
[litert/tools/benchmark_litert_model.h:92] Inference (min):      2.45 ms
[litert/tools/benchmark_litert_model.h:94] Inference (max):      2.66 ms
[litert/tools/benchmark_litert_model.h:96] Inference (std):      0.02
[litert/tools/benchmark_litert_model.h:103] Throughput:           525.55 MB/s
[litert/tools/benchmark_litert_model.h:112] \nMemory Usage:
[litert/tools/benchmark_litert_model.h:114] Init footprint:       8.94 MB
[litert/tools/benchmark_litert_model.h:116] Overall footprint:    11.51 MB
[litert/tools/benchmark_litert_model.h:123] Peak memory usage not available. (peak_mem_mb <= 0)
[litert/tools/benchmark_litert_model.h:126] ======================================
""",
    "INFO: ",
)
LITERT = (
    _logged(
        """STARTING!
Log parameter values verbosely: [0]
Num threads: [4]
[litert/tools/benchmark_litert_model.cc:137] Loading model from: /models/my net.tflite
Created TensorFlow Lite XNNPACK delegate for CPU.
The input model file size (MB): 3.67827
Initialized session in 18.777ms.
Running benchmark for at least 1 iterations and at least 0.5 seconds but terminate if exceeding 150 seconds.
count=190 first=6479 curr=2562 min=2487 max=6583 avg=2775.82 std=406 p5=2490 median=2600 p95=3100

Running benchmark for at least 50 iterations and at least 1 seconds but terminate if exceeding 150 seconds.
count=399 first=2581 curr=2509 min=2453 max=2657 avg=2504.32 std=16 p5=2470 median=2501 p95=2590

""",
        "INFO: ",
    )
    + LITERT_RESULTS
    + "INFO: [litert/tools/benchmark_litert_model.h:179] \n"
    + _table(
        "Run Order",
        [
            "\tLiteRT::Run[buffer registration]\t    0.120\t    0.100\t  4.000%\t  4.000%\t     0.000\t        1\t"
            "LiteRT::Run[buffer registration]/0\n",
            "\t                 AllocateTensors\t    0.900\t    0.900\t  0.010%\t  4.010%\t   452.000\t        0\t"
            "AllocateTensors/0\n",
            "\t  Fully Connected (NC, PF32) GEMM\t    1.967\t    1.150\t 92.000%\t 96.010%\t     0.000\t        2\t"
            "Delegate/Fully Connected (NC, PF32) GEMM:1\n",
            "\t        LiteRT::Run[Buffer sync]\t    0.110\t    0.100\t  3.990%\t100.000%\t     0.000\t        1\t"
            "LiteRT::Run[Buffer sync]/0\n",
        ],
    )
)

#: `--op_profiling_output_mode=csv`.
CSV = (
    _MODERN
    + "Operator-wise Profiling Info for Regular Benchmark Runs:\n"
    + f"{_RULE} Run Order {_RULE}\nnode type, first, avg_ms, %, cdf%, mem KB, times called, name\n"
    + "Convolution (NHWC, QU8) IGEMM, 2.113, 2, 80%, 80%, 0, 1, Delegate/Convolution (NHWC\t QU8) IGEMM:0\n"
    + "SOFTMAX, 0.249, 0.5, 20%, 100%, 0, 1, [out]:2\n\n"
)

#: TF 1.13: other words, nothing about memory, no profile.
OLDEST = """STARTING!
Num runs: [50]
Graph: [net.tflite]
Loaded model net.tflite
resolved reporter
Initialized session in 38.467ms
Running benchmark for at least 1 iterations and at least 0.5 seconds
count=7 first=85130 curr=81200 min=80010 max=85130 avg=83235 std=1200

Running benchmark for at least 50 iterations and at least 1 seconds
count=50 first=79449 curr=81350 min=77385 max=88213 avg=79732 std=1929

Average inference timings in us: Warmup: 83235, Init: 38467, no stats: 79732
"""


def stands_in(folder: Path, body: str) -> Path:
    """Write an executable `benchmark_model` whose Python `body` decides what it does; `sys` is imported."""
    folder.mkdir(parents=True, exist_ok=True)
    program = folder / "benchmark_model"
    program.write_text(f"#!{sys.executable} -S\nimport sys\n{body}\n")
    program.chmod(0o755)
    return program
