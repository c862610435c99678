"""The audit log's chain: whatever is changed, left out or cut off shows, and the first broken entry is named."""

from __future__ import annotations

import dataclasses
import json
import sqlite3
from typing import TYPE_CHECKING

import pytest

from tests.host.rollouts import made
from tflotilla.host.rollouts.journal import audit, database

if TYPE_CHECKING:
    from pathlib import Path

    from tflotilla.host.rollouts.journal.port import AuditEntry


@pytest.fixture
def log() -> list[AuditEntry]:
    entries: list[AuditEntry] = []
    for number in range(4):
        entries.append(
            audit.chained(
                entries[-1] if entries else None,
                at=1000.0 + number,
                by="anna@desk",
                action="approve",
                rollout="digits-2.0.0-7f3a",
                detail={"wave": number},
            )
        )
    return entries


def _head(entry: AuditEntry) -> audit.Head:
    return audit.Head(number=entry.number, digest=entry.digest)


def test_a_log_that_nobody_touched_is_whole(log: list[AuditEntry]) -> None:
    assert audit.verify(log, head=_head(log[-1])) is None
    assert audit.verify([], head=None) is None


def test_a_head_that_is_older_than_the_log_is_no_fault(log: list[AuditEntry]) -> None:
    """It is written after the entry: a crash between both leaves it behind."""
    assert audit.verify(log, head=_head(log[1])) is None


@pytest.mark.parametrize(
    "change", [{"by": "nobody"}, {"at": 1.0}, {"detail": {"wave": 9}}, {"rollout": None}, {"action": "abort"}]
)
def test_a_changed_entry_is_named(log: list[AuditEntry], change: dict[str, object]) -> None:
    log[2] = dataclasses.replace(log[2], **change)  # type: ignore[arg-type]

    found = audit.verify(log)

    assert found is not None
    assert found.startswith("entry 3 of the audit log was changed: ")


def test_a_change_with_a_digest_made_for_it_shows_at_the_next(log: list[AuditEntry]) -> None:
    forged = dataclasses.replace(log[1], by="nobody")
    log[1] = dataclasses.replace(forged, digest=audit.digest_of(forged))

    assert "entry 3 of the audit log does not follow entry 2: one of both was replaced" == audit.verify(log)


def test_an_entry_that_was_taken_out_is_named(log: list[AuditEntry]) -> None:
    del log[1]

    assert "entry 2 of the audit log is missing: after 1 comes 3" == audit.verify(log)


def test_an_end_that_was_cut_off_shows_by_the_head(log: list[AuditEntry]) -> None:
    head = _head(log[-1])

    assert "entries 3 to 4 of the audit log are missing: its end was cut off" == audit.verify(log[:2], head=head)


def test_a_log_that_was_written_anew_shows_by_the_head(log: list[AuditEntry]) -> None:
    anew = audit.chained(log[2], at=1.0, by="nobody", action="approve", rollout=None, detail={})

    expected = "entry 4 of the audit log is not the one that was written: all were written anew"
    assert expected == audit.verify([*log[:3], anew], head=_head(log[3]))


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        (
            "UPDATE tflotilla_audit SET document = replace(document, 'anna', 'nobody') WHERE number = 2",
            "entry 2 of the",
        ),
        ("DELETE FROM tflotilla_audit WHERE number = 1", "entry 1 of the audit log is missing"),
        ("DELETE FROM tflotilla_audit WHERE number = 3", "entries 3 to 3 of the audit log are missing"),
        ("UPDATE tflotilla_audit SET document = '{' WHERE number = 2", "{file}: entry 2 of the audit log is damaged"),
        ("DELETE FROM tflotilla_audit", "entries 1 to 3 of the audit log are missing"),
    ],
)
def test_a_change_behind_the_journals_back_shows(tmp_path: Path, statement: str, said: str) -> None:
    file = tmp_path / "rollouts.db"
    journal = database.open_journal(f"sqlite:///{file}")
    for action in ("start", "pause", "abort"):
        journal.audit(action, by="anna@desk", at=1.0, rollout=None, detail={"bundle": made.BUNDLE})
    assert journal.audit_fault() is None
    with sqlite3.connect(file) as connection:
        for change in ("update", "delete"):
            connection.execute(f"DROP TRIGGER tflotilla_audit_no_{change}")
        connection.execute(statement)

    found = database.open_journal(f"sqlite:///{file}").audit_fault()

    assert found is not None
    assert found.startswith(said.replace("{file}", str(file)))


def test_the_head_stands_beside_the_database(tmp_path: Path) -> None:
    journal = database.open_journal(f"sqlite:///{tmp_path / 'rollouts.db'}")
    entry = journal.audit("start", by="anna@desk", at=1.0, rollout=None, detail={})

    assert {"number": 1, "digest": entry.digest} == json.loads((tmp_path / "rollouts.db.head").read_text())
