"""Random values of the contract's dataclasses, for round-trip laws: equal seeds give equal values.

Driven by the type hints, so a field that is added is covered. Types that check their own values are drawn from the
ranges they allow.
"""

from __future__ import annotations

import dataclasses
import enum
import types
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal, TypeVar, Union, cast, get_args, get_origin

from tflotilla.shared.contract import agent_config, benchmark, codec, manifest, messages, processing

if TYPE_CHECKING:
    import random

T = TypeVar("T")
#: What people name things: spaces, quotes, shell words, umlauts, other scripts, emoji, control characters, nothing.
_TEXTS = (
    "",
    "digits",
    "a b",
    'it\'s "quoted"',
    "$(reboot)",
    "Käse",
    "猫",
    "🦜",
    "line\nbreak",
    "\x00",
    "null",
    "1",
    "x" * 300,
)
_SPECIAL: dict[type, Callable[[random.Random], Any]] = {}


def value_of(kind: type[T], rng: random.Random) -> T:
    """Return a random value of a type that the codec knows."""
    return cast("T", _value(kind, rng))


def _value(kind: Any, rng: random.Random) -> Any:  # noqa: ANN401, PLR0911 - one case a line
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        return None if rng.random() < 0.3 else _value(next(a for a in arguments if a is not type(None)), rng)
    if origin is Literal:
        return rng.choice(arguments)
    if origin is tuple:
        return tuple(_value(arguments[0], rng) for _ in range(rng.randint(0, 3)))
    if origin is not None and issubclass(origin, Mapping):
        return {rng.choice(_TEXTS): _value(arguments[1], rng) for _ in range(rng.randint(0, 3))}
    if kind in _SPECIAL:
        return _SPECIAL[kind](rng)
    if dataclasses.is_dataclass(kind):
        return build(cast("type", kind), rng)
    return _scalar(kind, rng)


def build(kind: type[T], rng: random.Random, /, **given: Any) -> T:  # noqa: ANN401 - fields of any type
    """Build a dataclass; fields that are not given are drawn."""
    hints = codec.hints(kind)
    fields = dataclasses.fields(cast("Any", kind))
    return kind(**{f.name: given[f.name] if f.name in given else _value(hints[f.name], rng) for f in fields})


def _scalar(kind: Any, rng: random.Random) -> Any:  # noqa: ANN401
    if kind is Any:
        return rng.choice([None, True, 3, -0.5, "text", [1, [2]], {"a": {"b": []}}])
    if issubclass(kind, enum.Enum):
        return rng.choice(list(kind))
    if kind is bool:
        return rng.random() < 0.5
    if kind is int:
        return rng.choice([0, 1, -1, rng.randint(-(2**63), 2**63)])
    if kind is float:
        return rng.choice([0.0, -0.0, 1e-300, 1e300, 0.1, float(rng.randint(0, 9)), rng.uniform(-1e6, 1e6)])
    if kind is str:
        return rng.choice(_TEXTS)
    message = f"no random {kind}"
    raise TypeError(message)


def _word(rng: random.Random) -> str:
    return "".join(rng.choice("abcdefghijklmnopqrstuvwxyz0123456789") for _ in range(rng.randint(1, 20)))


def _sha256(rng: random.Random) -> str:
    return f"{rng.getrandbits(256):064x}"


def _preprocessing(rng: random.Random) -> processing.Preprocessing:
    colour = rng.choice(get_args(processing.Colour))
    count = rng.choice([1, 1 if colour == "gray" else 3])
    mean = tuple(rng.uniform(0, 255) for _ in range(count))
    return build(processing.Preprocessing, rng, colour=colour, mean=mean, std=tuple(m + 1 for m in mean))


def _file_entry(rng: random.Random) -> manifest.FileEntry:
    return manifest.FileEntry(size=rng.randint(0, 2**40), sha256=_sha256(rng))


def _health_policy(rng: random.Random) -> manifest.HealthPolicy:
    limits = {name: rng.choice([None, rng.uniform(1e-3, 1e6)]) for name in ("max_p99_ms", "max_rss_mib")}
    seconds = {name: rng.uniform(1e-3, 1e6) for name in ("probe_timeout_s", "confirm_window_s")}
    return build(
        manifest.HealthPolicy, rng, **limits, **seconds, max_error_rate=rng.random(), max_p99_ratio=rng.uniform(1e-3, 9)
    )


def _manifest(rng: random.Random) -> manifest.Manifest:
    names = [
        manifest.MODEL,
        manifest.GOLDENS,
        *rng.sample([manifest.LABELS, "notes.txt", "a-1_b.bin"], rng.randint(0, 3)),
    ]
    return build(
        manifest.Manifest,
        rng,
        schema=manifest.SCHEMA,
        name=_word(rng),
        version=f"{rng.randint(0, 9)}.{rng.randint(0, 9)}+{_word(rng)}",
        release=rng.randint(1, 2**31),
        files={name: _file_entry(rng) for name in names},
    )


def _source_config(rng: random.Random) -> agent_config.SourceConfig:
    return build(agent_config.SourceConfig, rng, kind="folder", path="/srv", interval_ms=rng.uniform(0, 1e4))


def _method(rng: random.Random) -> benchmark.Method:
    max_seconds = rng.uniform(1, benchmark.MAX_SECONDS)
    scenario = rng.choice(get_args(benchmark.Scenario))
    return build(
        benchmark.Method,
        rng,
        scenario=scenario,
        warmup_runs=rng.randint(0, 99),
        warmup_seconds=rng.uniform(0, 9),
        min_runs=rng.randint(1, 9999),
        min_seconds=rng.uniform(0, max_seconds),
        max_seconds=max_seconds,
        run_delay_seconds=rng.uniform(0, 60),
        rate_hz=rng.uniform(1, 99) if scenario == "single_stream" else None,
        samples=_sha256(rng),
        input_count=rng.randint(1, 99),
        seed=rng.randint(0, 2**63 - 1),
        samples_per_query=rng.randint(1, 99),
        qps=rng.choice([None, rng.uniform(1, 99)]),
        latency_bound_ms=rng.uniform(1, 99),
        sustained_seconds=rng.choice([None, rng.uniform(1, 99)]),
        cool_to_c=rng.choice([None, rng.uniform(1, 99)]),
        cool_seconds=rng.uniform(0, 99),
        max_other_cpu_percent=rng.uniform(0, 99),
        max_rss_mib=rng.choice([None, rng.uniform(1, 99)]),
        keep_latencies=rng.randint(0, 99),
    )


def _cell(rng: random.Random) -> benchmark.BenchmarkCell:
    failed = rng.random() < 0.5
    return build(
        benchmark.BenchmarkCell,
        rng,
        error=build(benchmark.CellError, rng) if failed else None,
        measurement=None if failed else build(benchmark.Measurement, rng),
    )


def _latency_sketch(rng: random.Random) -> messages.LatencySketch:
    indices = sorted(rng.sample(range(4000), rng.randint(0, 5)))
    return messages.LatencySketch(
        relative_error=0.005,
        indices=tuple(indices),
        counts=tuple(rng.randint(1, 2**31) for _ in indices),
        zeros=rng.randint(0, 9),
    )


def _reference(rng: random.Random) -> manifest.Reference:
    scores = tuple(rng.randint(0, 99) for _ in range(10))
    return build(manifest.Reference, rng, samples=sum(scores), labels={rng.choice(_TEXTS): sum(scores)}, scores=scores)


def _ack(rng: random.Random) -> messages.Ack:
    also = tuple((first, first + rng.randint(0, 9)) for first in rng.sample(range(1, 2**53 - 9), rng.randint(0, 3)))
    return build(messages.Ack, rng, up_to=rng.randint(0, 2**53 - 1), also=also)


def _reporting_config(rng: random.Random) -> agent_config.ReportingConfig:
    return build(
        agent_config.ReportingConfig,
        rng,
        window_s=rng.uniform(0.05, 3600),
        outbox_max_mib=rng.uniform(1, 1e4),
        low_confidence_below=rng.random(),
        sample=rng.randint(0, 100),
        thumbnail_every_s=rng.choice([None, rng.uniform(0.5, 1e4)]),
    )


_SPECIAL |= {
    messages.LatencySketch: _latency_sketch,
    messages.Ack: _ack,
    manifest.Reference: _reference,
    benchmark.Configuration: lambda rng: build(benchmark.Configuration, rng, batch=rng.randint(1, 1024)),
    benchmark.Method: _method,
    benchmark.BenchmarkRequest: lambda rng: build(benchmark.BenchmarkRequest, rng, request=_word(rng)),
    benchmark.BenchmarkCell: _cell,
    processing.Preprocessing: _preprocessing,
    processing.Postprocessing: lambda rng: build(processing.Postprocessing, rng, top_k=rng.randint(1, 9)),
    manifest.FileEntry: _file_entry,
    manifest.HealthPolicy: _health_policy,
    manifest.Manifest: _manifest,
    agent_config.MqttConfig: lambda rng: build(
        agent_config.MqttConfig, rng, port=rng.randint(1, 65535), keepalive_s=rng.randint(1, 99)
    ),
    agent_config.InferenceConfig: lambda rng: build(
        agent_config.InferenceConfig,
        rng,
        num_threads=rng.randint(1, 64),
        affinity=tuple(rng.sample(range(1024), rng.randint(0, 4))),
    ),
    agent_config.SourceConfig: _source_config,
    agent_config.ReportingConfig: _reporting_config,
    agent_config.AgentConfig: lambda rng: build(agent_config.AgentConfig, rng, board=_word(rng), fleet=_word(rng)),
}
