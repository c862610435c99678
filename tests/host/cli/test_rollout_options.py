"""What the options of a rollout become, and what is refused."""

from __future__ import annotations

import pytest

from tflotilla.host.cli import rollout_options
from tflotilla.host.rollouts.policy import GateLimits, Policy
from tflotilla.shared.contract.errors import UsageError


def policy(**changes: object) -> Policy:
    given: dict[str, object] = {
        "soak": "60s",
        "baseline": "10s",
        "success": "90%",
        "error": "10%",
        "on_failure": "rollback",
        "shadow": 50,
        "gates": (),
    }
    return rollout_options.policy(**{**given, **changes})  # type: ignore[arg-type]


def test_the_defaults_are_those_of_the_policy() -> None:
    assert Policy() == policy()


def test_times_shares_and_limits_are_read() -> None:
    made = policy(
        soak="10min",
        baseline="0",
        success="0.5",
        error="5%",
        on_failure="halt",
        gates=("latency_ratio=1.2", "labels_psi=off", "error_rate=3%", "crashes=2"),
    )

    expected = Policy(
        soak_s=600,
        baseline_s=0,
        success=0.5,
        error=0.05,
        on_failure="halt",
        gates=GateLimits(latency_ratio=1.2, labels_psi=None, error_rate=0.03, crashes=2),
    )
    assert expected == made


def test_all_gates_can_be_switched_off_and_one_on_again() -> None:
    limits = rollout_options.gate_limits(("all=off", "error_rate=0.1"))

    assert 0.1 == limits.error_rate
    assert None is limits.latency_ratio
    assert None is limits.agreement


def test_without_a_shadow_nobody_is_asked_to_agree() -> None:
    assert None is policy(shadow=0).gates.agreement


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"success": "110%"}, "--success must be like 90% or 0.9, not '110%'"),
        ({"error": "many"}, "--error must be like 90% or 0.9, not 'many'"),
        ({"error": "nan"}, "--error must be like 90% or 0.9, not 'nan'"),
        ({"soak": "soon"}, "--soak must be like 90s or 10min, not 'soon'"),
        ({"soak": "1000h"}, "--soak must be 0..30 days, not 3600000.0 s"),
        ({"shadow": 20_000}, "--shadow must be 0..10000 inputs, not 20000"),
        ({"gates": ("speed=1",)}, "--gate 'speed=1': write NAME=LIMIT or NAME=off; there are agreement, "),
        ({"gates": ("latency_ratio",)}, "--gate 'latency_ratio': write NAME=LIMIT or NAME=off"),
        ({"gates": ("latency_ratio=fast",)}, "--gate 'latency_ratio=fast': the limit must be a number or off"),
        ({"gates": ("latency_ratio=nan",)}, "--gate latency_ratio must be at least 0, not nan"),
        ({"gates": ("temperature_c=nan",)}, "--gate temperature_c must be a number, not nan"),
        ({"gates": ("agreement=2",)}, "--gate agreement must be 0..1, not 2.0"),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_line(changes: dict[str, object], said: str) -> None:
    with pytest.raises(UsageError) as refused:
        policy(**changes)

    assert said in str(refused.value)
    assert "\n" not in str(refused.value)
