"""What TFLite's sparse encoding of weights gave: what a runtime can use of it, and one honest sentence. Pure.

Two kernels compute with sparse weights. TFLite's own FULLY_CONNECTED takes 1x4 blocks, in float, on any CPU. XNNPACK's
takes float 1x1 convolutions of which two thirds of the weights are zero, in a graph that begins with a 3x3 convolution
of stride 2 on three channels and ends in a global average, and not on x86 with AVX, where it expects dense to be faster
(README of the XNNPACK delegate; `xnn_is_chw_compatible_config`). Everything else is unpacked by DENSIFY when the file
is loaded: smaller on disk, as fast as before.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tflotilla.host.models import flatbuffer

if TYPE_CHECKING:
    from collections.abc import Sequence

_LEAST_ZEROS = 2 / 3
_FIRST_KERNEL = (3, 3, 3)
_CONVOLUTION_RANK = 4
#: Less than this is what two runs of one file differ by.
_NOISE = 1.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoding:
    """How the weights of a file are stored."""

    #: Fully connected layers whose weights are sparse where they are used.
    sparse_layers: int
    #: Layers whose weights are unpacked first.
    unpacked_layers: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Race:
    """The same model dense and sparse on one runtime."""

    runtime: str
    dense_ns: int
    sparse_ns: int

    @property
    def speedup(self) -> float:
        """How many times as fast the sparse file is."""
        return self.dense_ns / self.sparse_ns


def look(data: bytes) -> Encoding:
    """Return how the weights of a TFLite file are stored."""
    model = flatbuffer.read(data)
    sparse = unpacked = 0
    for graph in model.subgraphs:
        for operator in graph.operators:
            if flatbuffer.op_name(model, operator) == "DENSIFY":
                unpacked += 1
            elif any(index >= 0 and graph.tensors[index].sparsity is not None for index in operator.inputs):
                sparse += 1
    return Encoding(sparse_layers=sparse, unpacked_layers=unpacked)


def missing_for_xnnpack(data: bytes) -> tuple[str, ...]:
    """Return what a dense float file lacks for XNNPACK's sparse kernels, in words; nothing when it has all."""
    model = flatbuffer.read(data)
    graph = model.subgraphs[0]
    pointwise = begins = False
    names = [flatbuffer.op_name(model, operator) for operator in graph.operators]
    for operator, name in zip(graph.operators, names, strict=True):
        if name != "CONV_2D":
            continue
        tensor = graph.tensors[operator.inputs[1]]
        shape, options = flatbuffer.shape(tensor), operator.builtinOptions
        if len(shape) != _CONVOLUTION_RANK:
            continue
        if shape[1:3] == (1, 1) and options.strideH == options.strideW == 1:
            weights = flatbuffer.constant(model, tensor)
            pointwise |= weights is not None and bool(np.mean(weights == 0) >= _LEAST_ZEROS)
        begins |= shape[1:] == _FIRST_KERNEL and options.strideH == options.strideW == 2  # noqa: PLR2004 - as XNNPACK
    lacking = []
    if not pointwise:
        lacking.append("1x1 convolutions with two thirds of their weights zero")
    if not begins:
        lacking.append("a 3x3 convolution of stride 2 on three channels in front")
    if "MEAN" not in names:
        lacking.append("a global average at the end")
    return tuple(lacking)


def sentence(
    encoding: Encoding, races: Sequence[Race], *, bytes_dense: int, bytes_sparse: int, missing: Sequence[str], avx: bool
) -> str:
    """Say what the encoding gave: bytes, and time as it was measured."""
    times = bytes_dense / bytes_sparse
    said = f"sparse encoding: {_bytes(bytes_sparse)} instead of {_bytes(bytes_dense)} ({times:.1f}× smaller)"
    if not races:
        return f"{said}; its speed was not measured"
    said += "; " + "; ".join(
        f"{_ms(race.sparse_ns)} ms instead of {_ms(race.dense_ns)} ms on {race.runtime}, {_verdict(race)}"
        for race in races
    )
    why = []
    if encoding.sparse_layers:
        why.append(f"{encoding.sparse_layers} fully connected layer(s) are computed from 1x4 blocks")
    if encoding.unpacked_layers:
        reason = _unused(missing, avx=avx)
        why.append(
            f"the weights of {encoding.unpacked_layers} layer(s) are unpacked on loading"
            + (f" and computed dense: {reason}" if reason else "")
        )
    return f"{said}; {'; '.join(why)}" if why else said


def has_avx() -> bool:
    """Whether this machine's CPU is an x86 with AVX."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    return any(line.startswith("flags") and " avx" in line for line in text.splitlines())


def _unused(missing: Sequence[str], *, avx: bool) -> str:
    reasons = []
    if avx:
        reasons.append("XNNPACK uses no sparse kernels on an x86 CPU with AVX")
    if missing:
        reasons.append(
            f"{'and they' if avx else 'its sparse kernels'} need what this model has not: {', '.join(missing)}"
        )
    return ", ".join(reasons)


def _verdict(race: Race) -> str:
    if race.speedup >= _NOISE:
        return f"{race.speedup:.1f}× as fast"
    if race.speedup <= 1 / _NOISE:
        return f"{1 / race.speedup:.1f}× slower"
    return "no faster"


def _bytes(size: int) -> str:
    return f"{size / 1024:,.1f} KiB"


def _ms(nanoseconds: int) -> str:
    return f"{nanoseconds / 1e6:.3f}"
