"""Rollouts by commands alone: four virtual boards with real agents, a real broker, real models, good and bad.

The tests tell one story in order; each leaves the fleet as the next one needs it.
"""

from __future__ import annotations

import signal
import sqlite3
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
from PIL import Image

from tests import models_made
from tests.end_to_end.commands import Person
from tflotilla.host.lab import lab
from tflotilla.host.lab.lab import Lab

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [pytest.mark.timeout(600), pytest.mark.fleet]
PATIENCE_S = 120.0
#: The telemetry of a test is short: a second of soaking has five windows.
QUICK = ("--soak", "3s", "--baseline", "2s", "--shadow", "10")
#: Two cores and four boards: how long an inference takes says what else runs.
UNTIMED = ("--gate", "latency_ratio=off", "--gate", "memory_ratio=off", "--gate", "temperature_c=off")


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """Somebody with a fleet of four boards and four releases."""

    someone: Person
    here: Lab

    def types(self, *arguments: str | Path, code: int | None = 0) -> Any:  # noqa: ANN401 - Ran
        return self.someone.types(*arguments, "--fleet", self.here.fleet_file, code=code)

    def serving(self) -> dict[str, str]:
        boards = self.types("status", "all", "--json", code=None).document["boards"]
        return {each["board"]: f"{each['serving']['version']}" for each in boards if each["ok"] and each["serving"]}

    def rollout(self) -> dict[str, Any]:
        document: dict[str, Any] = self.types("rollout", "status", "--json").document
        return document

    def phases(self) -> dict[str, str]:
        return {name: board["phase"] for name, board in self.rollout()["boards"].items()}

    def until(self, condition: Any, what: str) -> None:  # noqa: ANN401 - a callable
        end = time.monotonic() + PATIENCE_S
        while not condition():
            assert time.monotonic() < end, f"{what} did not happen: {self.rollout()}"
            time.sleep(0.2)

    def begins(self, *arguments: str | Path) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "tflotilla.host", *map(str, arguments), "--fleet", str(self.here.fleet_file)],
            cwd=self.someone.folder,
            env=self.someone.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    folder = tmp_path_factory.mktemp("rollouts")
    (folder / "camera").mkdir()
    for label, name in enumerate(models_made.LABELS):
        Image.fromarray(models_made.noisy(label, seed=label)).save(folder / "camera" / f"{name}.png")
    (folder / "labels.txt").write_bytes(models_made.LABELS_TXT)
    with lab.up(home=folder / "labs", boards=4, bound=True) as here:
        settings = f"""
[agent.source]
kind = "folder"
path = {str(folder / "camera")!r}
interval_ms = 20

[agent.reporting]
window_s = 0.2
"""
        here.fleet_file.write_text(here.fleet_file.read_text() + settings)
        someone = Person(folder=folder, home=folder)
        made = Scene(someone=someone, here=here)
        made.types("board", "bootstrap", "all")
        releases = {"1.0.0": "tiny_classifier", "2.0.0": "tiny_classifier", "3.0.0": "tiny_classifier_shifted"}
        releases |= {"4.0.0": "tiny_classifier", "5.0.0": "tiny_classifier", "6.0.0": "tiny_classifier"}
        for version, model in releases.items():
            (folder / "model.tflite").write_bytes(models_made.read(model))
            someone.types(
                *("bundle", "create", "model.tflite", "--name", "digits", "--version", version),
                *("--labels", "labels.txt", "--preprocess", "unit,colour=gray"),
                *("--health", "confirm_window_s=0.5", "--health", "max_p99_ratio=none", "-o", f"digits-{version}.tflb"),
                *("--key", here.fleet_file.parent / "signing_key"),
            )
        yield made


def test_a_plan_says_what_would_happen_and_changes_nothing(scene: Scene) -> None:
    planned = scene.types("rollout", "plan", "digits-1.0.0.tflb", "all", "--waves", "1,50%,100%", "--json").document

    assert ["ready"] * 4 == [board["disposition"] for board in planned["boards"]]
    assert [1, 1, 2] == [len(wave["boards"]) for wave in planned["waves"]]
    assert all(board["send_bytes"] > 0 and board["expected_s"] > 0 for board in planned["boards"])
    assert {} == scene.serving()
    assert 2 == scene.types("rollout", "status", code=2).code


def test_a_first_release_reaches_every_board(scene: Scene) -> None:
    ran = scene.types("rollout", "start", "digits-1.0.0.tflb", "all", "--waves", "1,100%", *QUICK, *UNTIMED)

    assert dict.fromkeys(scene.phases(), "serving") == scene.phases()
    assert "succeeded" == scene.rollout()["status"]
    assert "wave 2 of 2 (100%) begins" in ran.out
    assert {f"lab-{n}": "1.0.0" for n in range(1, 5)} == scene.serving()


def test_a_second_rollout_of_the_same_bundle_has_nothing_to_do(scene: Scene) -> None:
    planned = scene.types("rollout", "plan", "digits-1.0.0.tflb", "all", "--json").document

    assert ["current"] * 4 == [board["disposition"] for board in planned["boards"]]
    scene.types("rollout", "start", "digits-1.0.0.tflb", "all", *QUICK)


def test_a_wave_waits_for_a_person(scene: Scene) -> None:
    scene.types("rollout", "start", "digits-2.0.0.tflb", "all", "--waves", "1,100%!", *QUICK, *UNTIMED)

    waiting = scene.phases()
    assert 1 == sum(phase == "serving" for phase in waiting.values())
    assert "approval" == scene.rollout()["phase"]

    scene.types("rollout", "approve")
    scene.types("rollout", "resume")

    assert "succeeded" == scene.rollout()["status"]
    assert {"2.0.0"} == set(scene.serving().values())


def test_a_model_with_swapped_labels_reaches_the_canary_alone_and_goes_back(scene: Scene) -> None:
    ran = scene.types("rollout", "start", "digits-3.0.0.tflb", "all", "--waves", "1,100%", *QUICK, *UNTIMED, code=14)

    found = scene.rollout()
    touched = [name for name, board in found["boards"].items() if board["attempts"]]
    assert 1 == len(touched)
    assert "agreement" in ran.err
    assert touched[0] in ran.err
    assert "rolled_back" == found["status"]
    assert {"2.0.0"} == set(scene.serving().values())


def test_a_board_that_is_off_is_queued_and_gets_the_newest_once(scene: Scene) -> None:
    scene.here.cut_power("lab-4")

    first = scene.types("rollout", "start", "digits-4.0.0.tflb", "all", "--waves", "1,100%", *QUICK, *UNTIMED)
    assert "lab-4" in first.out
    assert "converging" == scene.rollout()["status"]
    assert "queued" == scene.phases()["lab-4"]

    scene.types("rollout", "start", "digits-5.0.0.tflb", "all", "--waves", "1,100%", *QUICK, *UNTIMED)
    older = scene.types("rollout", "list", "--json").document["rollouts"][-2]
    assert "superseded" == older["boards"]["lab-4"]["phase"]

    scene.here.power_on("lab-4")
    scene.types("board", "bootstrap", "lab-4")
    scene.until(lambda: scene.types("rollout", "resume", code=None).code in (0, 11) and all_serve(scene), "convergence")

    assert "succeeded" == scene.rollout()["status"]
    assert {"5.0.0"} == set(scene.serving().values())
    told = scene.types("rollout", "status", "--json").document["boards"]["lab-4"]
    assert told["deployment"] is not None


def all_serve(scene: Scene) -> bool:
    return set(scene.phases().values()) == {"serving"}


def test_a_host_that_is_killed_goes_on_where_it_was_and_a_second_one_is_told(scene: Scene) -> None:
    conducting = scene.begins(
        *("rollout", "start", "digits-6.0.0.tflb", "all", "--waves", "1,50%,100%", *QUICK, *UNTIMED)
    )
    name = scene.rollout()["rollout"]
    scene.until(lambda: "digits-6" in scene.rollout()["rollout"] and scene.rollout()["conductor"], "a conductor")
    name = scene.rollout()["rollout"]

    second = scene.types("rollout", "resume", name, code=11)
    assert str(conducting.pid) in second.err
    third = scene.types("rollout", "start", "digits-6.0.0.tflb", "all", "--cached", *QUICK, code=11)
    assert name in third.err
    refused = [
        each for each in scene.types("rollout", "audit", "--json").document["entries"] if each["action"] == "busy"
    ]
    assert name in {each["rollout"] for each in refused}
    assert any(each["rollout"] != name and name in each["detail"]["reason"] for each in refused)

    scene.until(lambda: "pushing" in scene.phases().values() or "serving" in scene.phases().values(), "a push")
    conducting.send_signal(signal.SIGKILL)
    conducting.wait(timeout=PATIENCE_S)

    scene.types("rollout", "resume", name)

    assert "succeeded" == scene.rollout()["status"]
    assert {"6.0.0"} == set(scene.serving().values())


def test_everybody_goes_back_when_a_person_says_so(scene: Scene) -> None:
    scene.types("rollout", "rollback")

    assert "rolled_back" == scene.rollout()["status"]
    assert {"5.0.0"} == set(scene.serving().values())
    assert 11 == scene.types("rollout", "rollback", code=11).code


def test_who_did_what_is_in_the_audit_log_and_a_change_shows(scene: Scene) -> None:
    log = scene.types("rollout", "audit", "--json").document

    assert log["whole"]
    assert {"start", "resume", "approve", "rollback", "busy"} <= {entry["action"] for entry in log["entries"]}
    assert all(entry["by"].partition("@")[0] for entry in log["entries"])

    database = scene.here.fleet_file.parent / ".tflotilla" / "rollouts.db"
    with sqlite3.connect(database) as connection:
        for (trigger,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
            connection.execute(f"DROP TRIGGER {trigger}")
        connection.execute("UPDATE tflotilla_audit SET document = replace(document, '@', '-') WHERE number = 2")

    changed = scene.types("rollout", "audit", code=8)
    assert "entry 2 of the audit log was changed" in changed.err
    assert 1 == len(changed.err.strip().splitlines())
