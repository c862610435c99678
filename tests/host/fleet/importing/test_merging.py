"""What an import would change, and that what was exported comes back."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import pytest

from tflotilla.host.fleet.importing import ansible, merging, ssh_hosts, table
from tflotilla.host.fleet.importing.candidates import Candidate, LeftOut, Reading, board_name
from tflotilla.host.fleet.importing.merging import Change
from tflotilla.host.fleet.inventory import exporting
from tflotilla.host.fleet.inventory.entries import BoardEntry

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_BOARDS = {
    "pi-1": BoardEntry(host="10.0.0.1", user="pi", labels={"room": "kitchen"}),
    "pi-2": BoardEntry(host="10.0.0.2", port=2222),
}


def _candidate(name: str, groups: tuple[str, ...] = (), **table_: object) -> Candidate:
    return Candidate(name=name, origin=name.upper(), table=table_, groups=groups)


def _plan(
    *candidates: Candidate, labels: Mapping[str, str] | None = None, wanted: frozenset[str] | None = None
) -> merging.ImportPlan:
    reading = Reading(source="s", candidates=candidates, left_out=(LeftOut(origin="x", reason="y"),))
    return merging.plan(reading, _BOARDS, {"a": ("pi-1",)}, labels=labels or {}, wanted=wanted)


def test_new_boards_are_added_and_known_ones_changed_where_the_source_says_something_else() -> None:
    plan = _plan(
        _candidate("pi-1", ("a", "b"), host="10.0.0.1", user="root", labels={"floor": "1"}),
        _candidate("pi-2", host="10.0.0.2"),
        _candidate("pi-3", ("b",), host="10.0.0.3"),
    )

    assert {"pi-3": BoardEntry(host="10.0.0.3")} == plan.added
    assert (
        Change(board="pi-1", key="user", before="pi", after="root"),
        Change(board="pi-1", key="labels", before={"room": "kitchen"}, after={"room": "kitchen", "floor": "1"}),
    ) == plan.changed
    assert ("pi-2",) == plan.same
    assert {"b": ("pi-1", "pi-3")} == plan.joined
    assert {
        ("boards", "pi-1", "user"): "root",
        ("boards", "pi-1", "labels"): {"room": "kitchen", "floor": "1"},
        ("groups", "b", "boards"): ["pi-9", "pi-1", "pi-3"],
    } == plan.values({"b": ("pi-9",)})


def test_a_machine_that_the_fleet_knows_by_another_name_is_not_added_again() -> None:
    plan = _plan(_candidate("other", host="10.0.0.2", port=2222), _candidate("third", host="10.0.0.2"))

    assert ["third"] == list(plan.added)
    assert LeftOut(origin="OTHER", reason="the fleet has a board at this address: pi-2") in plan.left_out
    assert LeftOut(origin="x", reason="y") in plan.left_out


def test_labels_are_for_every_board_and_only_wanted_boards_come_in() -> None:
    plan = _plan(
        _candidate("n-1", host="n1"), _candidate("n-2", host="n2"), labels={"site": "lab"}, wanted=frozenset({"n-1"})
    )

    assert {"n-1": BoardEntry(host="n1", labels={"site": "lab"})} == plan.added
    assert LeftOut(origin="N-2", reason="not selected") in plan.left_out
    assert not plan.empty


@pytest.mark.parametrize(
    ("origin", "name"),
    [
        ("pi-7", "pi-7"),
        ("Pi_7.Local", "pi-7-local"),
        ("10.0.0.7", "10-0-0-7"),
        ("fe80::1", "fe80-1"),
        ("--x--", "x"),
        ("a--b", "a--b"),
        ("é", None),
        ("x" * 99, "x" * 63),
        ("", None),
    ],
)
def test_any_name_becomes_a_board_name_or_is_refused(origin: str, name: str | None) -> None:
    if name is None:
        with pytest.raises(ValueError, match="no board name can be made"):
            board_name(origin)
    else:
        assert name == board_name(origin)


@pytest.mark.parametrize("origin", ["all", "Offline", "and"])
def test_a_name_that_means_something_else_in_selectors_is_refused(origin: str) -> None:
    with pytest.raises(ValueError, match="means something else in selectors; choose another"):
        board_name(origin)


_EXPORTED = {
    "pi-1": BoardEntry(host="10.0.0.1", port=2222, user="pi", identity="~/.ssh/a key", jump="me@bastion:22"),
    "pi-2": BoardEntry(host="pi-2", labels={"room": "kitchen", "n": "007", "t": "True"}, python="/opt/py 3/bin/python"),
    "pi-3": BoardEntry(host="fe80::3", port=22, labels={"q": "it's"}, install="user"),
    "0": BoardEntry(host="0", user="1234", labels={"v": "1.0"}),
}
_GROUPS = {"kitchen": ("pi-1", "pi-2"), "old.ones": ("pi-3",), "others": ("elsewhere",)}


@pytest.mark.parametrize("form", ["ansible", "ansible-ini", "csv", "ssh-config"])
def test_what_was_exported_comes_back_as_it_was(tmp_path: Path, home: Path, form: str) -> None:
    text = exporting.text(cast("exporting.Format", form), _EXPORTED, _GROUPS, fleet="garden")
    path = tmp_path / {"ansible": "x.yml", "ansible-ini": "x.ini", "csv": "x.csv", "ssh-config": "x.conf"}[form]
    path.write_text(text)

    read = {"csv": table.read, "ssh-config": ssh_hosts.read}.get(form, ansible.read)
    found = read(path)

    assert () == found.left_out
    entries = {each.name: BoardEntry(**each.table) for each in found.candidates}
    groups = {each.name: set(each.groups) for each in found.candidates}
    if form == "ssh-config":
        plain = {
            name: BoardEntry(
                host=entry.host,
                port=entry.port,
                user=entry.user,
                identity=entry.identity and entry.identity.replace("~", str(home)),
                jump=entry.jump,
            )
            for name, entry in _EXPORTED.items()
        }
        assert plain == entries
    else:
        assert _EXPORTED == entries
        assert {"pi-1": {"kitchen"}, "pi-2": {"kitchen"}, "pi-3": {"old.ones"}, "0": set()} == groups
    assert text == exporting.text(cast("exporting.Format", form), _EXPORTED, _GROUPS, fleet="garden")
