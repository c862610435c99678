"""Everything that is shipped names metrics that exist, and every metric is explained."""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest

from tests.host.dashboards.prometheus import shipped
from tflotilla.host.dashboards.exposition.catalogue import CATALOGUE

SAMPLES = {name for metric in CATALOGUE for name in metric.samples}
LABELS = {label for metric in CATALOGUE for label in metric.labels} | {"le", "instance", "job"}


def promtool(*arguments: str) -> subprocess.CompletedProcess[str]:
    found = shutil.which("promtool")
    if found is None:
        pytest.skip("promtool is not installed (Debian: apt install prometheus)")
    return subprocess.run([found, *arguments], capture_output=True, text=True, check=False, timeout=120)


def test_every_metric_that_an_alert_names_exists() -> None:
    named = {name for rule in shipped.rules() for name in shipped.named(rule["expr"])}

    assert named
    assert set() == named - SAMPLES


def test_every_metric_that_grafana_s_dashboard_names_exists() -> None:
    named = shipped.named(shipped.GRAFANA.read_text())

    assert named
    assert set() == named - SAMPLES - {"tflotilla"}


def test_every_label_that_is_asked_for_exists() -> None:
    asked = [rule["expr"] for rule in shipped.rules()] + [query for _, query in shipped.panel_queries()]
    grouped = {
        label.strip()
        for query in asked
        for listed in re.findall(r"\b(?:by|on|ignoring) \(([^)]*)\)", query)
        for label in listed.split(",")
    }
    matched = {label for query in asked for label in re.findall(r"(\w+)=~?\"", query)}

    assert set() == (grouped | matched) - LABELS


def test_every_alert_says_how_bad_it_is_and_what_is_wrong() -> None:
    words = {"critical", "warning", "info"}
    incomplete = [
        rule["alert"]
        for rule in shipped.rules()
        if rule["labels"].get("severity") not in words or not rule["annotations"].get("summary")
    ]

    assert [] == incomplete


def test_promtool_takes_the_configuration_and_its_rules() -> None:
    done = promtool("check", "config", str(shipped.SCRAPING))

    assert 0 == done.returncode, done.stdout + done.stderr
    assert f"SUCCESS: {len(shipped.rules())} rules found" in done.stdout


def test_alerts_fire_when_they_should_and_only_then() -> None:
    done = promtool("test", "rules", str(shipped.DEPLOY.parent / "tests/host/dashboards/prometheus/rules_test.yml"))

    assert 0 == done.returncode, done.stdout + done.stderr


def test_no_two_panels_of_the_dashboard_share_a_place_or_a_number() -> None:
    panels = shipped.dashboard()["panels"]
    cells = [
        (x, y)
        for place in (panel["gridPos"] for panel in panels)
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]

    assert len(panels) == len({panel["id"] for panel in panels})
    assert len(cells) == len(set(cells))
    assert 24 == 1 + max(x for x, _ in cells)


def test_the_documentation_explains_every_metric_and_no_other() -> None:
    explained = set(re.findall(r"^\| `(tflotilla_\w+)`", (shipped.DOCS / "prometheus.md").read_text(), re.MULTILINE))

    shown = {metric.samples[0] if metric.kind != "histogram" else metric.name for metric in CATALOGUE}
    assert shown == explained


def test_the_documentation_says_of_each_metric_what_it_is_labelled_with() -> None:
    text = (shipped.DOCS / "prometheus.md").read_text()
    rows = dict(re.findall(r"^\| `(tflotilla_\w+)` \| \w+ \| ([^|]*) \|", text, re.MULTILINE))

    for metric in CATALOGUE:
        name = metric.samples[0] if metric.kind != "histogram" else metric.name
        assert list(metric.labels) == [word for word in re.findall(r"\w+", rows[name]) if word != "label_"], name
