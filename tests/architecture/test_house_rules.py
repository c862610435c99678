"""The rules of the house that import-linter can't state."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCES = sorted(
    path for part in ("shared", "device", "host") for path in (ROOT / part / "src").rglob("*.py") if path.is_file()
)
TESTS = sorted((ROOT / "tests").rglob("*.py"))
LONGEST_FILE = 500

#: Technology → the modules that may import it. A module named after a technology touches the world.
DOORS = {
    "paramiko": {"host/fleet/lines/ssh.py", "host/fleet/lines/ssh_config.py"},
    "fabric": {"host/fleet/lines/ssh.py"},
    "invoke": {"host/fleet/lines/ssh.py"},
    "paho": {"host/telemetry/mqtt.py", "device/transports/mqtt.py"},
    "asyncssh": {"host/lab/board.py"},
    "amqtt": {"host/lab/broker.py", "host/lab/embedded_broker.py"},
    "tflite_runtime": {"shared/inference/runtimes/tflite_runtime.py"},
    "ai_edge_litert": {"shared/inference/runtimes/litert.py", "host/models/flatbuffer.py"},
    "jinja2": {"host/pages/jinja.py"},
    "matplotlib": {"host/models/plots.py"},
    "sqlite3": {"device/outbox.py", "host/benchmarks/sqlite.py"},
    "sqlalchemy": {
        "host/rollouts/journal/database.py",
        "host/rollouts/journal/schema.py",
        *(
            f"host/telemetry/store/{name}.py"
            for name in ("database", "schema", "statements", "folding", "retention", "history")
        ),
    },
    "pyarrow": {"host/telemetry/store/exporting.py"},
    "starlette": {f"host/dashboards/web/{module}.py" for module in ("app", "server", "stream")},
    "uvicorn": {"host/dashboards/web/server.py"},
    "celery": {"host/rollouts/executors/celery.py"},
    "zeroconf": {"host/fleet/importing/mdns.py"},
    "yaml": {"host/fleet/importing/ansible.py"},
    "prometheus_client": {"host/dashboards/bridges/prometheus.py"},
}


def _place(path: Path) -> str:
    return path.relative_to(ROOT).as_posix().split("src/tflotilla/")[-1]


def _imported(path: Path) -> set[str]:
    roots = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            roots |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            roots.add(node.module.split(".")[0])
    return roots


def test_the_namespace_belongs_to_nobody() -> None:
    """`tflotilla/__init__.py` in one distribution would hide the other two."""
    found = [path for path in SOURCES if _place(path) == "__init__.py"]

    assert [] == found


@pytest.mark.parametrize("technology", DOORS)
def test_each_technology_has_one_door(technology: str) -> None:
    importers = {_place(path) for path in SOURCES if technology in _imported(path)}

    assert importers <= DOORS[technology]


def test_the_contract_needs_nothing_but_the_standard_library() -> None:
    import sys

    contract = [path for path in SOURCES if _place(path).startswith("shared/contract/")]
    foreign = {
        (_place(path), name)
        for path in contract
        for name in _imported(path)
        if name not in sys.stdlib_module_names and name != "tflotilla"
    }

    assert contract
    assert set() == foreign


def test_the_contract_imports_only_itself() -> None:
    contract = [path for path in SOURCES if _place(path).startswith("shared/contract/")]
    strangers = {
        (_place(path), node.module)
        for path in contract
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ImportFrom)
        and (node.module or "").startswith("tflotilla")
        and not (node.module or "").startswith("tflotilla.shared.contract")
    }

    assert set() == strangers


def test_files_stay_readable() -> None:
    long = {_place(path): len(path.read_text().splitlines()) for path in [*SOURCES, *TESTS]}

    assert {} == {place: lines for place, lines in long.items() if lines > LONGEST_FILE}


def test_no_module_is_called_utils() -> None:
    vague = {"utils.py", "helpers.py", "common.py", "misc.py"}

    assert [] == [_place(path) for path in SOURCES if path.name in vague]


def test_every_module_says_what_it_is_for() -> None:
    silent = [_place(path) for path in [*SOURCES, *TESTS] if not ast.get_docstring(ast.parse(path.read_text()))]

    assert [] == silent


def test_nothing_committed_names_a_machine_or_a_registry() -> None:
    """Locks and documents must work from any index and any folder."""
    words = ("pypi" + ".org", "pythonhosted" + ".org", "registry.npmjs" + ".org", "deb.debian" + ".org", "/root" + "/")
    suffixes = {".py", ".md", ".txt", ".toml", ".sh", ".in", ".yml", ".json", ""}
    skipped = {".git", ".venv", ".tools", ".mypy_cache", ".ruff_cache", ".pytest_cache", "__pycache__", ".cache"}
    guilty = [
        f"{path.relative_to(ROOT)}: {word}"
        for path in ROOT.rglob("*")
        if path.is_file() and path.suffix in suffixes and path.name != "uv.lock" and not skipped & set(path.parts)
        for word in words
        if word in path.read_text(errors="ignore")
    ]

    assert [] == guilty
