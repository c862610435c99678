"""Which boards can run a model, and that the table of op versions is what the runtimes here really accept."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import importlib.util
import json

import pytest

from tests import facts_made, models_made
from tflotilla.host.models import compatibility, op_table
from tflotilla.host.models.compatibility import OpTable, Verdict, check, check_runtime
from tflotilla.host.models.inspect import inspect_bytes
from tflotilla.shared.contract.board import BoardFacts, RuntimeOffer
from tflotilla.shared.contract.errors import ModelError
from tflotilla.shared.contract.manifest import ModelRequirements, OpRequirement
from tflotilla.shared.contract.tensors import TensorSpec
from tflotilla.shared.inference import runtime as runtimes

OLD = RuntimeOffer(name="tflite-runtime", version="2.14.0")
NEW = RuntimeOffer(name="ai-edge-litert", version="2.3.0")
MIB = 1 << 20
BOARD = facts_made.facts(ram_bytes=1024 * MIB, disk_free_bytes=1024 * MIB, runtimes=(OLD, NEW))


def _needs(*ops: tuple[str, int], custom: tuple[str, ...] = (), flex: tuple[str, ...] = ()) -> ModelRequirements:
    required = tuple(OpRequirement(name=name, version=version) for name, version in ops)
    return ModelRequirements(ops=required, custom_ops=custom, flex_ops=flex)


def _check(requirements: ModelRequirements, facts: BoardFacts = BOARD) -> Verdict:
    return check(requirements, facts)


def test_what_both_runtimes_accept_fits() -> None:
    verdict = _check(_needs(("CONV_2D", 3), ("FULLY_CONNECTED", 9)))

    assert verdict.ok
    assert verdict.runtime == OLD
    assert str(verdict) == "can run it"


def test_one_runtime_that_fits_is_enough_and_the_other_says_why_not() -> None:
    """TensorFlow 2.21's default dynamic-range Dense layers."""
    verdict = _check(_needs(("FULLY_CONNECTED", 12)))

    assert verdict.ok
    assert verdict.runtime == NEW
    assert [str(each) for each in verdict.runtimes] == [
        "FULLY_CONNECTED version 12; tflite-runtime 2.14.0 accepts 1..10",
        "",
    ]


def test_a_board_with_only_the_old_runtime_is_refused_with_op_and_version() -> None:
    verdict = _check(_needs(("FULLY_CONNECTED", 12)), dataclasses.replace(BOARD, runtimes=(OLD,)))

    assert not verdict.ok
    assert str(verdict) == "FULLY_CONNECTED version 12; tflite-runtime 2.14.0 accepts 1..10"


def test_an_op_that_a_runtime_does_not_have_at_all_is_named() -> None:
    verdict = _check(_needs(("STABLEHLO_SCATTER", 1)), dataclasses.replace(BOARD, runtimes=(OLD,)))

    assert str(verdict) == "STABLEHLO_SCATTER version 1; tflite-runtime 2.14.0 has no such op"


def test_many_reasons_stay_one_line() -> None:
    ops = [(f"OP_{i}", 1) for i in range(30)]
    verdict = _check(_needs(*ops), dataclasses.replace(BOARD, runtimes=(OLD,)))

    assert "and 27 more" in str(verdict)


def test_the_detection_op_is_built_in_and_a_stranger_is_not() -> None:
    assert _check(_needs(custom=("TFLite_Detection_PostProcess",))).ok

    verdict = _check(_needs(custom=("Sinh",)), dataclasses.replace(BOARD, runtimes=(NEW,)))
    assert str(verdict) == "custom op 'Sinh'; ai-edge-litert 2.3.0 doesn't have it"


def test_a_delegate_may_bring_custom_ops_but_never_versions() -> None:
    """The probe on the board has the last word about the first; a loader never gets past the second."""
    assert check(_needs(custom=("Sinh",)), BOARD, delegate=True).ok
    assert not check(_needs(("FULLY_CONNECTED", 99)), BOARD, delegate=True).ok


def test_a_model_compiled_for_an_edge_tpu_says_so() -> None:
    assert "compiled for an Edge TPU" in str(_check(_needs(custom=("edgetpu-custom-op",))))


def test_flex_ops_name_the_delegate_that_nobody_has() -> None:
    verdict = _check(_needs(flex=("FlexSoftplus",)))

    assert not verdict.ok
    assert "FlexSoftplus need the Flex delegate" in str(verdict)


def test_text_tensors_are_refused() -> None:
    text = TensorSpec(name="words", shape=(1,), dtype="string")

    assert "tensor 'words' holds text" in str(check(_needs(), BOARD, tensors=(text,)))


def test_a_board_that_was_never_bootstrapped_says_so() -> None:
    verdict = _check(_needs(("ADD", 1)), dataclasses.replace(BOARD, runtimes=()))

    assert not verdict.ok
    assert verdict.reasons[0].startswith("not bootstrapped")


def test_memory_counts_model_activations_and_agent() -> None:
    needs = dataclasses.replace(_needs(("ADD", 1)), arena_bytes=300 * MIB)
    small = dataclasses.replace(BOARD, ram_bytes=512 * MIB)

    assert check(needs, small, model_bytes=100 * MIB).ok
    refused = check(needs, small, model_bytes=200 * MIB)
    assert not refused.ok
    assert "needs about 590.0 MiB of memory" in str(refused)
    assert "it has 512.0 MiB" in str(refused)


def test_the_disk_keeps_a_reserve() -> None:
    full = dataclasses.replace(BOARD, disk_free_bytes=20 * MIB)

    assert check(_needs(), full, bytes_needed=4 * MIB).ok
    refused = check(_needs(), full, bytes_needed=5 * MIB)
    assert not refused.ok
    assert "20.0 MiB are free" in str(refused)


def test_nothing_to_send_needs_no_disk() -> None:
    assert check(_needs(), dataclasses.replace(BOARD, disk_free_bytes=0), bytes_needed=0).ok


@pytest.mark.parametrize(
    ("labels", "words"),
    [({"room": "kitchen"}, None), ({"room": "cellar"}, "room=cellar"), ({}, "no label room")],
)
def test_the_audience_must_match(labels: dict[str, str], words: str | None) -> None:
    verdict = check(_needs(), BOARD, audience={"room": "kitchen"}, labels=labels)

    assert verdict.ok is (words is None)
    assert words is None or words in str(verdict)


def test_an_old_python_and_a_strange_processor_are_named() -> None:
    assert "Python 3.9.2 is too old" in str(_check(_needs(), dataclasses.replace(BOARD, python="3.9.2")))
    assert "armv6l" in str(_check(_needs(), dataclasses.replace(BOARD, arch="armv6l")))


def test_a_board_configured_for_one_runtime_is_judged_by_it() -> None:
    needs = _needs(("FULLY_CONNECTED", 12))

    assert not check(needs, BOARD, runtime="tflite-runtime").ok
    assert check(needs, BOARD, runtime="ai-edge-litert").ok
    absent = check(needs, dataclasses.replace(BOARD, runtimes=(OLD,)), runtime="ai-edge-litert")
    assert "configured for ai-edge-litert, which is not installed" in str(absent)


def test_a_runtime_that_did_not_reproduce_the_goldens_is_refused() -> None:
    verdict = check(
        _needs(("ADD", 1)),
        dataclasses.replace(BOARD, runtimes=(OLD,)),
        not_reproduced_by=("tflite-runtime==2.14.0",),
    )

    assert not verdict.ok
    assert "tflite-runtime 2.14.0 computes something else" in str(verdict)


def _table(version: str, highest: int) -> OpTable:
    return OpTable(name="r", version=version, ops={"ADD": (1, highest)}, custom_ops=frozenset())


@pytest.mark.parametrize(
    ("version", "assumed", "ok"),
    [("2.9.0", None, False), ("2.9.5", "2.9.0", False), ("2.14.0", None, True), ("2.20.1", "2.14.0", True)],
)
def test_an_unmeasured_version_is_judged_by_the_nearest_lower_one(
    version: str,
    assumed: str | None,
    ok: bool,  # noqa: FBT001 - a column of the table above
) -> None:
    tables = (_table("2.9.0", 1), _table("2.14.0", 3), _table("3.0.0", 9))

    verdict = check_runtime(_needs(("ADD", 2)), RuntimeOffer(name="r", version=version), tables=tables)

    assert verdict.ok is ok
    assert verdict.assumed == assumed


def test_versions_before_everything_measured_are_not_guessed() -> None:
    verdict = check_runtime(_needs(("ADD", 1)), RuntimeOffer(name="r", version="1.0"), tables=(_table("2.9.0", 1),))

    assert not verdict.ok
    assert "never measured" in str(verdict)


@pytest.mark.parametrize(("lower", "higher"), [("2.9", "2.14"), ("2.1.0", "2.1.1"), ("2.14.0", "2.15.0rc1")])
def test_versions_are_ordered_by_their_numbers(lower: str, higher: str) -> None:
    assert compatibility.version_key(lower) < compatibility.version_key(higher)
    assert compatibility.version_key("2.1") == compatibility.version_key("2.1.0")


def test_real_models_are_judged_as_their_runtimes_judge_them() -> None:
    """The verdict is the loader's: checked against every runtime of this machine."""
    for name in models_made.MADE:
        model = models_made.read(name)
        requirements = inspect_bytes(model, name).requirements
        for runtime in runtimes.present():
            verdict = check_runtime(requirements, runtime.offer)
            try:
                runtime.load(model, runtimes.LoadOptions())
                loads = True
            except ModelError:
                loads = False
            assert verdict.ok is loads, f"{name} on {runtime.offer}: {verdict}"


PRESENT = [name for name in runtimes.ADAPTERS if importlib.util.find_spec(name.replace("-", "_"))]


@pytest.mark.parametrize("name", PRESENT)
def test_the_shipped_table_is_what_the_runtime_here_accepts(name: str) -> None:
    """A few ops at the edge of their range, asked of the runtime itself."""
    version = importlib.metadata.version(name)
    table = compatibility.nearest_table(RuntimeOffer(name=name, version=version), compatibility.known_tables())
    assert table is not None
    if table.version != version:
        pytest.skip(f"{name} {version} was never measured; the table of {table.version} stands in")

    expected: dict[tuple[str, int], bool] = {("STABLEHLO_PAD", 1): "STABLEHLO_PAD" in table.ops}
    for op in ("FULLY_CONNECTED", "BROADCAST_TO", "CONV_2D"):
        lowest, highest = table.ops[op]
        expected |= {(op, lowest): True, (op, highest): True, (op, highest + 1): False, (op, lowest - 1): lowest == 1}
    del expected["FULLY_CONNECTED", 0], expected["CONV_2D", 0]  # version 0 is nobody's

    assert tuple(expected.values()) == op_table.accepts(name, list(expected))
    assert op_table.registers(name, "TFLite_Detection_PostProcess")
    assert "TFLite_Detection_PostProcess" in table.custom_ops
    assert not op_table.registers(name, "Sinh")


def test_newer_runtimes_accept_what_older_ones_did() -> None:
    """Why the nearest lower table may stand in for a version that was never measured."""
    tables = sorted(compatibility.known_tables(), key=lambda table: compatibility.version_key(table.version))
    pairs = [(a, b) for a in tables for b in tables[tables.index(a) + 1 :] if a.name == b.name]

    assert len(pairs) > 10
    for older, newer in pairs:
        assert older.custom_ops <= newer.custom_ops
        for op, (lowest, highest) in older.ops.items():
            assert newer.ops[op][0] <= lowest, (op, newer.version)
            assert newer.ops[op][1] >= highest, (op, newer.version)


def test_the_newest_table_of_each_runtime_is_found() -> None:
    found = {table.name: table.version for table in compatibility.newest_tables()}

    assert {"ai-edge-litert": "2.3.0", "tflite-runtime": "2.14.0"} == found


def test_the_shipped_file_is_what_the_prober_writes() -> None:
    text = op_table.TABLE_PATH.read_text()

    assert text == op_table.serialize(json.loads(text))
