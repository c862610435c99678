"""MobileNetV2 1.0 224 on a desktop CPU: why int8 was published 60 times slower than float, and int8 faster than float.

All TFLite files run on one thread, in turns; the TensorFlow graph with all cores, as it does unless told otherwise.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tflotilla.host.models import latency
from tflotilla.host.reproductions import networks
from tflotilla.host.reproductions.cases import mobilenet_v2_sizes
from tflotilla.host.reproductions.reproduction import Reproduction, Row
from tflotilla.shared.contract.errors import BoardError
from tflotilla.shared.inference import runtime as runtimes

if TYPE_CHECKING:
    from tflotilla.host.models.latency import Latency
    from tflotilla.host.reproductions.desk import Desk

TITLE = "MobileNetV2 1.0 224: speed on a desktop CPU"
NEEDS = ""
MINUTES = 3
_RUNS = 150
_LEAST_GAIN = 2.0


def run(desk: Desk) -> Reproduction:
    """Do the case."""
    written, *files = mobilenet_v2_sizes.write(desk)
    desk.say("timing the graph in TensorFlow")
    rows = [
        Row(
            what="TensorFlow, frozen graph",
            published="272 FPS",
            ours=_fps(networks.graph_latency_s(written.frozen, _RUNS)),
        )
    ]
    remarks = ["The weights are random: speed does not depend on their values."]
    gains = {}
    for name in runtimes.ADAPTERS:
        desk.say(f"timing {name}")
        try:
            floating, integer = latency.compare(files, name, runs=_RUNS)
        except BoardError as error:
            remarks.append(f"{name}: {error}")
            continue
        gains[name] = floating.invoke.p50_ns / integer.invoke.p50_ns
        rows += [
            Row(what=f"float32, {floating.runtime}", published="63 FPS", ours=_figure(floating)),
            Row(what=f"int8, {integer.runtime}", published="1.06 FPS", ours=_figure(integer)),
        ]
    best = max(gains, key=lambda name: gains[name])
    rows.append(
        Row(
            what=f"int8 against float32 on the best runtime ({best})",
            published="0.017×",
            ours=f"{gains[best]:.2f}×",
            holds=gains[best] >= _LEAST_GAIN,
        )
    )
    return Reproduction(
        name="mobilenet-v2-speed",
        title=TITLE,
        rows=tuple(rows),
        remarks=(
            *remarks,
            "The slow int8 is not the model but the runtime: the built-in int8 kernels are written for ARM (NEON) and "
            "fall back to plain loops on x86. A runtime that hands int8 to XNNPACK, as LiteRT does and tflite-runtime "
            "2.14 does not, runs the same file faster than float. On ARM boards the gap "
            "between the two runtimes is smaller; `tflotilla benchmark` measures it there.",
            "How much faster than float int8 is depends on the processor's integer instructions and on what a virtual "
            "machine lets through of them: at least 2× is asked, and the table says whether this machine gives it.",
        ),
    )


def _figure(found: Latency) -> str:
    return f"{_fps(found.invoke.p50_ns / 1e9)}, {'XNNPACK' if found.delegated_nodes else 'built-in kernels'}"


def _fps(seconds: float) -> str:
    return f"{1 / seconds:,.3g} FPS"
