"""Refuses options of `benchmark` that nothing would heed: who gives one believes that it was measured so.

With --rerun the file says how boards measure; some options belong to one scenario, and some exclude each other.
What it does NOT do: check values, which the request's own types do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from click.core import ParameterSource

from tflotilla.shared.contract.errors import UsageError

if TYPE_CHECKING:
    import click

#: What --rerun leaves open: which bundles and samples to bring, how to reach boards, and what becomes of the result.
_BESIDE_RERUN = frozenset(
    {
        *("selector", "models", "data", "samples", "label_offset", "rerun", "over", "at_once", "timeout"),
        *("save", "name", "target", "details", "require_valid", "fleet", "as_json"),
    }
)
_ONLY_IN = {"qps": "server", "latency_bound": "server", "samples_per_query": "multi-stream"}
_AXES = frozenset({"threads", "runtimes", "xnnpack", "delegate", "affinity", "batch"})
_OF_DATA = frozenset({"samples", "label_offset"})


def refuse_ignored(context: click.Context) -> None:
    """Raise UsageError for the first option on the command line that would change nothing."""
    given = {
        parameter.name: parameter.opts[0]
        for parameter in context.command.params
        if parameter.name is not None and context.get_parameter_source(parameter.name) is ParameterSource.COMMANDLINE
    }
    scenario = context.params["scenario"]
    for name, option in given.items():
        if "rerun" in given and name not in _BESIDE_RERUN:
            raise UsageError(f"--rerun measures as the file says; leave out {option}")
        if "as_served" in given and name in _AXES:
            raise UsageError(f"--as-served is the board's own configuration; leave out {option}")
        if name in _ONLY_IN and scenario != _ONLY_IN[name]:
            raise UsageError(f"{option} is for --scenario {_ONLY_IN[name]}, and this is {scenario}")
        if name in _OF_DATA and "data" not in given:
            raise UsageError(f"{option} is for the samples of --data, which is not given")
    if "run_delay" in given and "rate" in given:
        raise UsageError("--run-delay and --rate both say when a run begins; leave out one of them")
    if "run_delay" in given and scenario == "server":
        raise UsageError("--run-delay is not for --scenario server, where arrivals say when a run begins")
