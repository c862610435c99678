"""alarms.toml: what it means, and that every mistake in it is one line with its place."""

from __future__ import annotations

import pytest

from tflotilla.host.telemetry.alarms import rules
from tflotilla.shared.contract.errors import ConfigError

FULL = """
[alarms.off]
kind = "offline"
boards = "room=kitchen"
for = "1m"
keep_firing_for = 5
severity = "critical"
silent_after = "40s"

[alarms.slow]
kind = "latency"
stage = "invoke"
percentile = 90
above_ms = 12.5
over = "5m"

[alarms.mix]
kind = "drift"
of = "labels"

[webhook]
url = "https://example.org/hook"
timeout = "3s"
body = { text = "{summary}", at = "{at}" }
"""


def test_a_file_is_read_as_it_says() -> None:
    found = rules.parse(FULL, "alarms.toml")

    expected = rules.Rules(
        rules=(
            rules.Rule(
                name="off",
                condition=rules.Offline(silent_after_s=40.0),
                boards="room=kitchen",
                severity="critical",
                for_s=60.0,
                keep_firing_for_s=5.0,
            ),
            rules.Rule(
                name="slow", condition=rules.Latency(above_ms=12.5, stage="invoke", percentile=90.0, over_s=300.0)
            ),
            rules.Rule(name="mix", condition=rules.Drift(of="labels")),
        ),
        webhook=rules.WebhookConfig(
            url="https://example.org/hook", timeout_s=3.0, body={"text": "{summary}", "at": "{at}"}
        ),
    )
    assert expected == found


def test_every_kind_can_be_written_with_what_it_needs() -> None:
    needs = {"latency": "above_ms = 1", "temperature": "above_c = 80", "drift": 'of = "confidence"'}

    for kind, condition in rules.KINDS.items():
        found = rules.parse(f'[alarms.a]\nkind = "{kind}"\n{needs.get(kind, "")}', "alarms.toml")

        assert (kind, condition) == (found.rules[0].kind, type(found.rules[0].condition))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", 'alarms.toml: no alarms; each is a table: [alarms.off] with kind = "offline"'),
        ("[alarms", "alarms.toml: Expected ']' at the end of a table declaration (at end of document)"),
        ("[alarm.a]", "alarms.toml: unknown key 'alarm'; did you mean 'alarms'?"),
        ("[alarms]\na = 1", 'alarms.toml: alarms.a: an alarm is a table: [alarms.a] with kind = "offline"'),
        ('[alarms."a b"]', "alarms.toml: alarms.a b: a name has letters, digits, '.', '_' and '-', at most 63"),
        ("[alarms.a]", "alarms.toml: alarms.a: kind is missing; there are offline, latency, throttled"),
        ('[alarms.a]\nkind = "ofline"', "alarms.toml: alarms.a: kind: there is no 'ofline'; did you mean 'offline'?"),
        ("[alarms.a]\nkind = 3", "alarms.toml: alarms.a: kind: there is no '3'; there are"),
        ('[alarms.a]\nkind = "latency"', "alarms.toml: alarms.a: key 'above_ms' is missing"),
        ('[alarms.a]\nkind = "latency"\nabove_ms = "5"', 'alarms.toml: alarms.a.above_ms: "5" is not allowed here'),
        ('[alarms.a]\nkind = "latency"\nabove_ms = 0', "alarms.toml: alarms.a: above_ms must be above 0, not 0"),
        ('[alarms.a]\nkind = "latency"\nabove_ms = nan', "alarms.toml: alarms.a.above_ms: "),
        ('[alarms.a]\nkind = "latency"\nabove_ms = 1\nstage = "load"', "alarms.toml: alarms.a.stage: "),
        ('[alarms.a]\nkind = "offline"\nfro = "1s"', "alarms.toml: alarms.a: unknown key 'fro'; did you mean 'for'?"),
        ('[alarms.a]\nkind = "offline"\nfor = "soon"', 'alarms.toml: alarms.a.for: write a time like "30s"'),
        ('[alarms.a]\nkind = "offline"\nfor = -1', 'alarms.toml: alarms.a.for: write a time like "30s"'),
        ('[alarms.a]\nkind = "offline"\nfor = true', 'alarms.toml: alarms.a.for: write a time like "30s"'),
        ('[alarms.a]\nkind = "offline"\nfor = "9d"', 'alarms.toml: alarms.a.for: write a time like "30s"'),
        ('[alarms.a]\nkind = "drops"\nover = "1s"', 'alarms.toml: alarms.a: over must be between "5s" and "1d"'),
        ('[alarms.a]\nkind = "offline"\nabove_ms = 3', "alarms.toml: alarms.a: unknown key 'above_ms'; allowed are"),
        ('[alarms.a]\nkind = "offline"\nseverity = "bad"', "alarms.toml: alarms.a.severity: "),
        ('[alarms.a]\nkind = "drift"\nof = "scores"', "alarms.toml: alarms.a.of: "),
        ('[alarms.a]\nkind = "offline"\n[webhook]', "alarms.toml: webhook: give url, or url_file for a secret one"),
        ('[alarms.a]\nkind = "offline"\n[webhook]\nurl = "ftp://x"', "alarms.toml: webhook: url must begin with http"),
        (
            '[alarms.a]\nkind = "offline"\n[webhook]\nurl = "http://x"\nbody = { a = ["{bord}"] }',
            "alarms.toml: webhook: body: there is no {bord}; there are fleet, board",
        ),
        (
            '[alarms.a]\nkind = "offline"\n[webhook]\nurl = "http://x"\nheaders = { "a" = "b\\nc: d" }',
            "alarms.toml: webhook: headers: 'a' can't be sent",
        ),
        (
            '[alarms.a]\nkind = "offline"\n[webhook]\nurl = "http://x"\nbody = { a = [2026-01-02, 1] }',
            "alarms.toml: webhook: body: it must be JSON",
        ),
        (
            '[alarms.a]\nkind = "offline"\n[webhook]\nurl = "http://x"\nbody = { a = { b = inf } }',
            "alarms.toml: webhook: body: ",
        ),
    ],
)
def test_a_mistake_is_one_line_with_its_place(text: str, expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        rules.parse(text, "alarms.toml")

    assert str(caught.value).startswith(expected)
    assert "\n" not in str(caught.value)


def test_the_rules_that_hold_by_themselves_could_stand_in_a_file() -> None:
    kinds = [rule.kind for rule in rules.DEFAULTS.rules]

    assert ["offline", "errors", "throttled", "drops", "drift"] == kinds
