"""What deploy/ ships for Prometheus and Grafana, as tests read it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import yaml

DEPLOY = Path(__file__).resolve().parents[4] / "deploy"
DOCS = DEPLOY.parent / "docs"
RULES = DEPLOY / "prometheus" / "tflotilla.rules.yml"
SCRAPING = DEPLOY / "prometheus" / "prometheus.yml"
GRAFANA = DEPLOY / "grafana" / "tflotilla.json"
#: What a dashboard's variables become when it is asked for everything.
_VARIABLES = {"$board": ".*", "$model": ".*", "$stage": "total", "$__rate_interval": "1m"}


def rules() -> list[dict[str, Any]]:
    """Return every alert rule."""
    return [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]


def dashboard() -> dict[str, Any]:
    """Return the dashboard of Grafana."""
    document: dict[str, Any] = json.loads(GRAFANA.read_text())
    return document


def panel_queries() -> list[tuple[str, str]]:
    """Return (title of the panel, PromQL with variables filled in) of the whole dashboard."""
    queries = []
    for panel in dashboard()["panels"]:
        for target in panel.get("targets", ()):
            text = target["expr"]
            for variable, value in _VARIABLES.items():
                text = text.replace(variable, value)
            queries.append((panel["title"], text))
    return queries


def named(text: str) -> set[str]:
    """Return the names of our metrics in a text."""
    return set(re.findall(r"\btflotilla_[a-z_0-9]+\b", text))
