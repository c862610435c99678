"""What lies in deploy/ is what systemd takes, and what the code would write."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tflotilla.host.fleet.agents import systemd

UNITS = Path(__file__).parents[2] / "deploy" / "systemd"


@pytest.mark.parametrize("unit", sorted(path.name for path in UNITS.glob("*.service")))
def test_systemd_finds_nothing_wrong_with_a_unit(unit: str, tmp_path: Path) -> None:
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("systemd is not on this machine")
    # Where the agent lies on a board is not here; everything else must hold.
    text = (UNITS / unit).read_text().replace("ExecStart=/var/lib/tflotilla/bin/", "ExecStart=-/bin/true ")
    (tmp_path / unit).write_text(text)

    done = subprocess.run([analyze, "verify", str(tmp_path / unit)], capture_output=True, text=True, check=False)

    assert ("", 0) == (done.stderr, done.returncode)


def test_the_units_are_those_that_a_bootstrap_writes() -> None:
    assert systemd.UNIT == (UNITS / "tflotilla-agent.service").read_text()
    assert systemd.UPGRADE == (UNITS / "tflotilla-upgrade.service").read_text()
