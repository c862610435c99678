"""What is refused before a board is asked."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from tflotilla.host.fleet.inventory.fleet import Fleet
from tflotilla.host.rollouts import starting
from tflotilla.host.rollouts.policy import GateLimits, Policy
from tflotilla.shared.contract.errors import ConfigError, UsageError

if TYPE_CHECKING:
    from pathlib import Path

BLIND = GateLimits(**dict.fromkeys(GateLimits.__dataclass_fields__))
BOARD = '\n[boards.pi-1]\nhost = "192.0.2.1"\n[boards.pi-1.agent.reporting]\nwindow_s = 20.0\n'


def fleet(folder: Path, mqtt: str = '[mqtt]\nhost = "192.0.2.9"\n') -> Fleet:
    path = folder / "fleet.toml"
    path.write_text(f'name = "farm"\n{mqtt}{BOARD}')
    return Fleet.load(path)


def test_gates_without_a_broker_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"has no \[mqtt\], so gates can't see what boards do"):
        starting.refuse_deaf(fleet(tmp_path, mqtt=""), Policy())

    starting.refuse_deaf(fleet(tmp_path, mqtt=""), Policy(gates=BLIND))


@pytest.mark.parametrize(("soak_s", "baseline_s", "option"), [(10, 10, "soak"), (0, 10, "soak"), (60, 5, "baseline")])
def test_a_board_that_reports_more_rarely_than_it_is_watched_is_named(
    tmp_path: Path, soak_s: float, baseline_s: float, option: str
) -> None:
    policy = Policy(soak_s=soak_s, baseline_s=baseline_s)

    with pytest.raises(UsageError, match=rf"--{option} is too short for pi-1, which reports every 20 s"):
        starting.refuse_blinks(fleet(tmp_path), ["pi-1"], policy)

    starting.refuse_blinks(fleet(tmp_path), ["pi-1"], replace(policy, gates=BLIND))


def test_a_baseline_of_none_is_a_persons_word(tmp_path: Path) -> None:
    starting.refuse_blinks(fleet(tmp_path), ["pi-1"], Policy(soak_s=60, baseline_s=0))
