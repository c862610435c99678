"""`tflotilla lab` as users run it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Run = Callable[..., subprocess.CompletedProcess[str]]

PATIENCE_S = 120.0


@pytest.fixture
def run(tmp_path: Path) -> Run:
    def tflotilla(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "tflotilla.host", *arguments],
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
            env=os.environ | {"TFLOTILLA_LAB_HOME": str(tmp_path / "labs"), "COLUMNS": "200"},
        )

    return tflotilla


def test_a_lab_comes_up_is_listed_watched_and_goes(run: Run, tmp_path: Path) -> None:
    try:
        up = run("lab", "up", "--name", "barn", "--boards", "2")

        assert up.returncode == 0, up.stderr
        assert "barn-2" in up.stdout
        assert f"export TFLOTILLA_FLEET={tmp_path}/labs/barn/fleet/fleet.toml" in up.stderr
        assert "tflotilla lab down barn" in up.stderr

        again = run("lab", "up", "--name", "barn")
        assert (again.returncode, again.stdout) == (11, "")

        (listed,) = json.loads(run("lab", "list", "--json").stdout)
        assert [board["running"] for board in listed["boards"]] == [True, True]

        watched = run("watch", "--fleet", listed["fleet"], "--for", "0.3", "--json")
        assert (watched.returncode, watched.stdout) == (0, "")
    finally:
        down = run("lab", "down", "barn")

    assert down.returncode == 0
    assert json.loads(run("lab", "list", "--json").stdout) == []
    assert list((tmp_path / "labs").iterdir()) == []


def test_the_embedded_broker_is_said_plainly(run: Run) -> None:
    try:
        up = run("lab", "up", "--boards", "1", "--broker", "embedded")
    finally:
        run("lab", "down")

    assert "the embedded broker" in up.stderr
    assert "not for data" in up.stderr


def test_a_lab_that_is_not_there_is_one_line(run: Run) -> None:
    result = run("lab", "down", "barn")

    assert result.returncode == 2
    assert result.stderr.endswith("tflotilla: no lab is called 'barn'; there is none\n")


@pytest.mark.parametrize("arguments", [("--boards", "0"), ("--name", "$(id)"), ("--broker", "x"), ("--python", "/no")])
def test_what_makes_no_sense_is_a_usage_error(run: Run, arguments: tuple[str, str]) -> None:
    assert run("lab", "up", *arguments).returncode == 2
    assert json.loads(run("lab", "list", "--json").stdout) == []
