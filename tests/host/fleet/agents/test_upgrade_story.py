"""A board changes its agent by itself: whatever happens on the way, it ends with exactly the old or exactly the new."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import pytest

from tflotilla.host.fleet.agents import onboard

if TYPE_CHECKING:
    from types import ModuleType

_OLD, _NEW = "environments/old", "environments/new"
_WELL = {"worker": "running", "serving": {"digest": "m"}, "previous": {"digest": "l"}, "reporting": True}


def _script() -> ModuleType:
    """Load what boards get as a file of their own; no module of the host imports it."""
    spec = importlib.util.spec_from_file_location("upgrade_on_board", Path(onboard.__file__).with_name("upgrade.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


upgrade = _script()


class PowerCutError(Exception):
    """The board is off from here on."""


@dataclasses.dataclass
class _Board:
    """A board's agent and clock. An agent is the set of files it was started with."""

    home: Path
    #: What an agent says of itself so many seconds after its start; None doesn't answer.
    behaviour: dict[str, Any]
    #: Cut the power at the step of this number, once.
    cut_at: int | None = None
    time: float = 0.0
    running: str | None = "old"
    started_at: float = -1000.0
    steps: list[str] = dataclasses.field(default_factory=list)
    refuses: dict[str, str] = dataclasses.field(default_factory=dict)

    def step(self, what: str) -> None:
        self.steps.append(what)
        if len(self.steps) == self.cut_at:
            raise PowerCutError(what)

    def now(self) -> float:
        return self.time

    def wait(self, seconds: float) -> None:
        self.time += seconds

    def stop(self) -> None:
        self.running = None

    def start(self, _timeout_s: float | None) -> str | None:
        # One that runs already is left alone.
        found = self.agent()
        if found in self.refuses:
            return self.refuses[found]
        if self.running is None:
            self.running, self.started_at = found, self.time
        return None

    def state(self) -> dict[str, Any] | None:
        if self.running is None:
            return None
        said = self.behaviour[self.running]
        found: dict[str, Any] | None = said(self.time - self.started_at) if callable(said) else said
        return found

    def agent(self) -> str:
        """Name what would start now: `old`, `new`, or a mixture."""
        whole = {"old": (_OLD, "old launcher", "old config", "secret"), "new": (_NEW, "new launcher", "new config", "")}
        found = tuple(
            path.read_text() if path.exists() else ""
            for path in (self.home / "launcher", self.home / "config", self.home / "password")
        )
        found = (str((self.home / "environment").readlink()), *found)
        return next((name for name, each in whole.items() if each == found), f"a mixture: {found}")

    def reboot(self) -> None:
        """Come up again; whatever agent is there is started, as cron or systemd would."""
        self.time, self.running, self.cut_at = 0.0, None, None
        if self.agent() in self.behaviour:
            self.start(None)


def _board(folder: Path, **behaviour: Any) -> _Board:  # noqa: ANN401 - what the agents say
    home = folder / "home"
    for name in ("upgrade/new", "upgrade/before"):
        (home / name).mkdir(parents=True)
    (home / "environment").symlink_to(_OLD)
    for name, old, new in (("launcher", "old launcher", "new launcher"), ("config", "old config", "new config")):
        (home / name).write_text(old)
        (home / "upgrade" / "before" / name).write_text(old)
        (home / "upgrade" / "new" / name).write_text(new)
    for place in ("password", "upgrade/before/password"):
        (home / place).write_text("secret")
    (home / "upgrade" / "pending").touch()
    plan = {
        "id": "1",
        "state": "staged",
        "window_s": 60,
        "systemd": False,
        "environment": {"before": _OLD, "after": _NEW},
        "files": [
            {"name": "config", "path": str(home / "config"), "mode": 0o600, "keep": True, "before": 0o640},
            {"name": "launcher", "path": str(home / "launcher"), "mode": 0o755, "keep": False, "before": 0o755},
        ],
        "removed": [{"name": "password", "path": str(home / "password"), "before": 0o600}],
    }
    (home / "upgrade" / "plan.json").write_text(json.dumps(plan))
    return _Board(home, {"old": _WELL, **behaviour})


def _end(board: _Board) -> dict[str, Any]:
    plan: dict[str, Any] = upgrade.carry_out(str(board.home), board)
    assert not (board.home / "upgrade" / "pending").exists()
    assert sorted(path.name for path in (board.home / "upgrade").iterdir()) == ["plan.json"]
    return plan


def test_a_new_agent_that_does_all_that_the_old_one_did_stays(tmp_path: Path) -> None:
    board = _board(tmp_path, new=_WELL)

    plan = _end(board)

    assert plan["state"] == "confirmed"
    assert (board.running, board.agent()) == ("new", "new")
    assert (board.home / "config").stat().st_mode & 0o777 == 0o600
    assert (board.home / "config.before").read_text() == "old config"


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (None, "it does not answer"),
        ({**_WELL, "worker": "failing", "problem": "no op"}, "does not serve (its worker is failing: no op)"),
        ({**_WELL, "worker": "none", "serving": None}, "does not serve (its worker is none)"),
        ({**_WELL, "serving": {"digest": "another"}}, "the model that served before does not serve"),
        ({**_WELL, "reporting": False, "problem": "refused"}, "the broker took no report of it"),
        ({**_WELL, "reporting": None}, "the broker took no report of it"),
    ],
)
def test_one_that_does_less_is_undone_after_its_window_and_the_reason_is_kept(
    tmp_path: Path, said: dict[str, Any] | None, reason: str
) -> None:
    board = _board(tmp_path, new=said)

    plan = _end(board)

    assert (plan["state"], plan["old_runs"]) == ("undone", True)
    assert reason in plan["reason"]
    assert (board.running, board.agent()) == ("old", "old")
    assert 60 <= board.time < 62
    assert (board.home / "config").stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize(
    "old",
    [
        None,
        {"worker": "failing", "serving": {"digest": "m"}, "previous": None, "reporting": False},
        {"worker": "none", "serving": None, "previous": None, "reporting": None},
    ],
    ids=["off", "failing", "bare"],
)
def test_nothing_is_asked_of_it_that_the_old_one_did_not_do(tmp_path: Path, old: dict[str, Any] | None) -> None:
    bare = {"worker": "failing", "serving": None, "previous": None, "reporting": False}
    board = _board(tmp_path, old=old, new=bare)

    assert _end(board)["state"] == "confirmed"


def test_a_worker_of_the_old_agent_that_is_just_starting_is_waited_for(tmp_path: Path) -> None:
    def starting(age_s: float) -> dict[str, Any]:
        return {**_WELL, "worker": "starting" if age_s < 5 else "running"}

    board = _board(tmp_path, old=starting, new={**_WELL, "worker": "failing"})
    board.started_at = 0.0

    assert _end(board)["state"] == "undone"


def test_a_deployment_that_the_restart_undid_is_not_held_against_the_agent(tmp_path: Path) -> None:
    board = _board(tmp_path, new={**_WELL, "serving": {"digest": "l"}, "previous": None})

    assert _end(board)["state"] == "confirmed"


def test_a_slow_one_has_its_whole_window(tmp_path: Path) -> None:
    board = _board(tmp_path, new=lambda age_s: None if age_s < 58 else _WELL)

    assert _end(board)["state"] == "confirmed"


def test_one_that_is_well_for_a_moment_only_is_undone(tmp_path: Path) -> None:
    board = _board(tmp_path, new=lambda age_s: _WELL if age_s % 2 < 0.6 else None)

    assert _end(board)["state"] == "undone"


def test_one_that_says_at_once_why_it_can_t_start_is_undone_at_once(tmp_path: Path) -> None:
    board = _board(tmp_path, new=None)
    board.refuses["new"] = "the agent did not come up:\nagent.toml: [source] kind is missing"

    plan = _end(board)

    assert plan["reason"] == "the agent did not come up: agent.toml: [source] kind is missing"
    assert board.time < 1


def test_an_old_one_that_does_not_start_either_is_said_so(tmp_path: Path) -> None:
    board = _board(tmp_path, new=None)
    board.refuses["old"] = "broken too"

    plan = _end(board)

    assert (plan["state"], plan["old_runs"], board.agent()) == ("undone", False, "old")


def _numbers(*, good: bool) -> range:
    """Count the steps of a story, so that the power can be cut at each."""
    with tempfile.TemporaryDirectory() as folder:
        board = _board(Path(folder), new=_WELL if good else None)
        _end(board)
        return range(1, len(board.steps) + 1)


@pytest.mark.parametrize("cut_at", _numbers(good=True))
def test_a_power_cut_at_any_step_of_a_good_upgrade_ends_with_the_new_agent(tmp_path: Path, cut_at: int) -> None:
    board = _board(tmp_path, new=_WELL)
    board.cut_at = cut_at
    with pytest.raises(PowerCutError):
        upgrade.carry_out(str(board.home), board)

    board.reboot()
    plan = _end(board)

    assert plan["state"] == "confirmed"
    assert (board.running, board.agent()) == ("new", "new")


@pytest.mark.parametrize("cut_at", _numbers(good=False))
def test_a_power_cut_at_any_step_of_a_bad_upgrade_ends_with_the_old_agent(tmp_path: Path, cut_at: int) -> None:
    board = _board(tmp_path, new=None)
    board.cut_at = cut_at
    with pytest.raises(PowerCutError):
        upgrade.carry_out(str(board.home), board)

    board.reboot()
    plan = _end(board)

    assert plan["state"] == "undone"
    assert (board.running, board.agent()) == ("old", "old")


@pytest.mark.parametrize("cut_at", _numbers(good=False))
def test_from_the_first_change_to_the_last_the_launcher_is_one_that_goes_on_with_it(
    tmp_path: Path, cut_at: int
) -> None:
    """An old launcher may know nothing of upgrades: wherever something else is mixed, the new one must be there."""
    board = _board(tmp_path, new=None)
    board.cut_at = cut_at
    with pytest.raises(PowerCutError):
        upgrade.carry_out(str(board.home), board)

    found = board.agent()

    assert found in ("old", "new") or "new launcher" in found


def test_a_board_that_the_new_agent_takes_down_again_and_again_gets_its_old_one(tmp_path: Path) -> None:
    def down(_age_s: float) -> NoReturn:
        raise PowerCutError

    board = _board(tmp_path, new=down)
    for _attempt in range(upgrade.MAX_STARTS):
        with pytest.raises(PowerCutError):
            upgrade.carry_out(str(board.home), board)
        board.reboot()

    plan = _end(board)

    assert plan["state"] == "undone"
    assert plan["reason"] == "the board went down 3 times before it had reported"
    assert (board.running, board.agent()) == ("old", "old")
