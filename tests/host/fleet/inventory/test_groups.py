"""Groups in fleet.toml, and boards that stand in an Ansible inventory."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tflotilla.host.fleet.inventory.fleet import BoardEntry, Fleet
from tflotilla.shared.contract.errors import ConfigError, UsageError

if TYPE_CHECKING:
    from pathlib import Path

_TEXT = """\
name = "garden"

[agent.inference]
num_threads = 2

[groups.kitchen]
boards = ["pi-1", "pi-2"]
labels = { room = "kitchen", floor = "1" }
user = "cook"
[groups.kitchen.agent.source]
kind = "folder"
path = "/srv/kitchen"

[groups.fours]
selector = "gen=4 or @kitchen,!pi-1"
port = 2222
user = "four"
jump = "me@bastion"
install = "user"
[groups.fours.agent.source]
path = "/srv/fours"

[boards.pi-1]
host = "h1"
user = "mine"
labels = { room = "hall" }
[boards.pi-2]
host = "h2"
[boards.pi-3]
host = "h3"
install = "auto"
labels = { gen = "4" }
"""


def _fleet(folder: Path, text: str) -> Fleet:
    (folder / "fleet.toml").write_text(text)
    return Fleet.load(folder / "fleet.toml")


def test_groups_say_for_their_boards_what_these_dont_say_themselves(tmp_path: Path) -> None:
    fleet = _fleet(tmp_path, _TEXT)

    kitchen = {"source": {"kind": "folder", "path": "/srv/kitchen"}}
    assert {"kitchen": ("pi-1", "pi-2"), "fours": ("pi-2", "pi-3")} == fleet.groups
    assert BoardEntry(host="h1", user="mine", labels={"room": "hall", "floor": "1"}, agent=kitchen) == fleet.board(
        "pi-1"
    )
    assert BoardEntry(
        host="h2",
        user="four",
        port=2222,
        jump="me@bastion",
        install="user",
        labels={"room": "kitchen", "floor": "1"},
        agent={"source": {"kind": "folder", "path": "/srv/fours"}},
    ) == fleet.board("pi-2")
    assert fleet.board("pi-3").install == "auto"
    assert fleet.agent_config("pi-2", home="/").inference.num_threads == 2
    assert fleet.select("@fours") == ("pi-2", "pi-3")


def test_labels_of_a_group_can_be_selected_by_the_groups_below_it(tmp_path: Path) -> None:
    text = _TEXT.replace('selector = "gen=4 or @kitchen,!pi-1"', 'selector = "floor=1"')

    assert _fleet(tmp_path, text).groups["fours"] == ("pi-1", "pi-2")


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('"pi-2"]', '"pi-9"]', "groups.kitchen.boards: no board 'pi-9'"),
        ('user = "cook"', 'user = "a b"', "groups.kitchen: user 'a b' is not a login name"),
        ('user = "cook"', 'usr = "a"', "groups.kitchen: unknown key 'usr'; did you mean 'user'"),
        ("gen=4 or", "gen=4 or or", "groups.fours.selector: selector"),
        ("gen=4 or", "online or", "only names, groups and labels can be asked for"),
        ("@kitchen,!pi-1", "@later", "no group '@later'; the fleet's groups: kitchen"),
        ("[groups.fours]", '[groups."a b"]\n[groups.fours]', "groups.a b: a group's name is letters"),
        ('labels = { gen = "4" }', 'labels = { gen = { four = "4" } }', "labels.gen: "),
        ("kitchen.agent.source", "kitchen.agent.sorce", "boards.pi-1.agent: unknown key 'sorce'"),
        ('jump = "me@bastion"', 'jump = "-oProxyCommand=x"', "is not [user@]host[:port]"),
        ("[agent.inference]", '[inventory]\nansible = "no.ini"\n[agent.inference]', "inventory.ansible: "),
    ],
)
def test_what_is_wrong_with_a_group_is_named(tmp_path: Path, old: str, new: str, said: str) -> None:
    with pytest.raises(ConfigError) as refused:
        _fleet(tmp_path, _TEXT.replace(old, new))

    assert said in str(refused.value)
    assert str(tmp_path / "fleet.toml") in str(refused.value)


def test_a_board_that_is_removed_leaves_its_groups_and_the_comments(tmp_path: Path) -> None:
    fleet = _fleet(tmp_path, _TEXT.replace("[boards.pi-2]", "# by the oven\n[boards.pi-2]"))

    removed = fleet.remove("pi-2")

    assert removed.groups == {"kitchen": ("pi-1",), "fours": ("pi-3",)}
    assert Fleet.load(fleet.path) == removed
    assert "# by the oven" in fleet.path.read_text()


def test_an_ansible_inventory_is_used_where_it_is_under_what_fleet_toml_says(tmp_path: Path) -> None:
    (tmp_path / "hosts.ini").write_text(
        "[kitchen]\npi-1 ansible_host=10.0.0.1 ansible_user=root\nPi_8\n[kitchen:vars]\nansible_port=2222\n[empty]\n"
    )
    fleet = _fleet(
        tmp_path, _TEXT.replace("[agent.inference]", '[inventory]\nansible = "hosts.ini"\n[agent.inference]')
    )

    assert list(fleet.boards) == ["pi-1", "pi-8", "pi-2", "pi-3"]
    assert fleet.board("pi-8").port == 2222
    assert (fleet.board("pi-1").host, fleet.board("pi-1").user, fleet.board("pi-1").port) == ("h1", "mine", 2222)
    assert fleet.groups["kitchen"] == ("pi-1", "pi-8", "pi-2")
    assert frozenset({"pi-8"}) == fleet.elsewhere
    written = fleet.path.read_text()
    # What fleet.toml says of pi-1 is not all of it: it would be there as before, without its host key.
    for name in ("pi-8", "pi-1"):
        with pytest.raises(UsageError, match=f"{name} stands in the Ansible inventory"):
            fleet.remove(name)
    assert written == fleet.path.read_text()


def test_an_inventory_elsewhere_is_enough(tmp_path: Path) -> None:
    (tmp_path / "hosts.ini").write_text("pi-1\npi-2\n")

    fleet = _fleet(tmp_path, 'name = "g"\n[inventory]\nansible = "hosts.ini"\n[boards.pi-2]\nuser = "pi"\n')

    assert {"pi-1": BoardEntry(host="pi-1"), "pi-2": BoardEntry(host="pi-2", user="pi")} == fleet.boards
