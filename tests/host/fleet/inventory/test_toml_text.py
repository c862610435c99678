"""Changes to TOML that leave what people wrote."""

from __future__ import annotations

import random
import tomllib
from typing import Any

import pytest

from tflotilla.host.fleet.inventory import toml_text

_TEXT = """\
# Mine.
name = "garden"   # the green one

[boards.pi-1]   # by the door
host = "10.0.0.1"   # fixed
labels = { room = "kitchen", floor = "1" } # where

[boards."pi-2"]
host = '10.0.0.2 # not a comment'
[boards.pi-2.labels]
# its place
room = "hall"
[boards.pi-2.agent.source]
kind = "folder"

[boards]
pi-3.host = "10.0.0.3"
pi-3.labels.room = "attic" # dusty
pi-4 = { host = "10.0.0.4", labels = { a = "b" } }

[groups.up]
boards = [
  "pi-1", # first
  "pi-2",
]
"""


def test_a_value_is_replaced_where_it_stands_and_its_comment_stays() -> None:
    changed = toml_text.put(_TEXT, {("boards", "pi-1", "labels"): {"room": "hall"}, ("boards", "pi-1", "host"): "h"})

    expected = _TEXT.replace('{ room = "kitchen", floor = "1" }', '{ room = "hall" }').replace('"10.0.0.1"', '"h"')
    assert expected == changed


@pytest.mark.parametrize(
    ("path", "value", "old", "new"),
    [
        (("boards", "pi-2", "labels"), {"room": "x"}, 'room = "hall"', 'room = "x"'),
        (("boards", "pi-2", "labels"), {"room": "hall", "a": "b"}, 'room = "hall"\n', 'room = "hall"\na = "b"\n'),
        (("boards", "pi-3", "labels"), {"room": "x"}, '"attic" # dusty', '"x" # dusty'),
        (("boards", "pi-3", "user"), "pi", " # dusty\n", ' # dusty\npi-3.user = "pi"\n'),
        (("boards", "pi-4", "labels"), None, ', labels = { a = "b" }', ""),
        (("boards", "pi-4", "port"), 22, '{ a = "b" } }', '{ a = "b" }, port = 22 }'),
        (("boards", "pi-1", "user"), "pi", " # where\n", ' # where\nuser = "pi"\n'),
        (("groups", "up", "boards"), ["pi-1"], '[\n  "pi-1", # first\n  "pi-2",\n]', '["pi-1"]'),
        (("groups", "new", "boards"), ["pi-1"], '  "pi-2",\n]\n', '  "pi-2",\n]\n\n[groups.new]\nboards = ["pi-1"]\n'),
        (("boards", "pi-9", "host"), None, "x", "x"),
    ],
)
def test_each_way_of_writing_a_table_is_changed_in_its_own_way(
    path: tuple[str, ...], value: object, old: str, new: str
) -> None:
    assert _TEXT.replace(old, new) == toml_text.put(_TEXT, {path: value})


def test_a_board_goes_with_all_its_tables_and_nobody_elses() -> None:
    changed = toml_text.put(_TEXT, {("boards", "pi-2"): None})

    wanted = tomllib.loads(_TEXT)
    del wanted["boards"]["pi-2"]
    assert wanted == tomllib.loads(changed)
    assert "# by the door" in changed
    assert "# its place" in changed


def test_the_last_board_can_go() -> None:
    assert 'name = "g"\n' == toml_text.put('name = "g"\n[boards.a]\nhost = "h"\n', {("boards", "a"): None})


def test_tables_are_appended_on_lines_of_their_own() -> None:
    tables: dict[tuple[str, ...], dict[str, Any]] = {
        ("boards", "a b"): {"host": 'q"uo\x7fte', "labels": {"x": "ü"}, "port": None, "on": True, "l": [1, 2.5]}
    }

    text = toml_text.append('name = "g"\n\n\n', tables)

    assert text.startswith('name = "g"\n\n[boards."a b"]\n')
    assert {"host": 'q"uo\x7fte', "labels": {"x": "ü"}, "on": True, "l": [1, 2.5]} == tomllib.loads(text)["boards"][
        "a b"
    ]


@pytest.mark.parametrize("text", ["a = ", "[a\nb = 1", 'x = """never ends', "a" * 10])
def test_a_text_that_is_no_toml_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        toml_text.put(text, {("a",): 1})


def _random_text(random_: random.Random) -> str:
    """Write a few boards in ways chosen at random."""
    lines = ['name = "g"']
    for number in random_.sample(range(9), random_.randint(0, 5)):
        name = f"b-{number}"
        style = random_.randint(0, 3)
        if style == 0:
            lines += [f"[boards.{name}]", f'host = "h{number}" # c', f'labels = {{ a = "{number}" }}']
        elif style == 1:
            lines += [
                f"[boards.'{name}']",
                f'host = "h{number}"',
                f"[boards.{name}.labels] # c",
                'a = "1"',
                "# end",
                "",
            ]
        elif style == 2:
            lines += [f"[boards.{name}]", f"host = 'h{number}'", 'labels.a = "x#y"', 'labels."b c" = "d"', ""]
        else:
            lines += [f"[boards . {name} ]", "agent = [ # odd", "  1,", "]", "", f'host = """h{number}"""']
    return "\n".join(lines)


@pytest.mark.parametrize("seed", range(200))
def test_whatever_is_changed_the_rest_says_what_it_said(seed: int) -> None:
    random_ = random.Random(seed)  # noqa: S311 - a seeded test
    text = _random_text(random_)
    wanted = tomllib.loads(text)
    for _round in range(4):
        board = f"b-{random_.randint(0, 9)}"
        key = random_.choice(["labels", "host", "user"])
        value: Any = {"a": "z", "n": "1"} if key == "labels" else "other"
        if random_.random() < 0.3:
            value = None
        path = ("boards", board) if random_.random() < 0.2 and value is None else ("boards", board, key)
        text = toml_text.put(text, {path: value})
        toml_text._apply(wanted, path, value)

        assert toml_text._pruned(wanted) == toml_text._pruned(tomllib.loads(text))
