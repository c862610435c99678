"""What boards should be against what they said; labels as they are typed."""

from __future__ import annotations

import pytest

from tests.host.fleet.selection.test_selectors import _SERVED, _ZERO
from tflotilla.host.fleet.inventory import labelling, reconciliation
from tflotilla.host.fleet.inventory.contacts import Contact, Known
from tflotilla.host.fleet.inventory.reconciliation import Aspect, Desired
from tflotilla.shared.contract.errors import UsageError

_WANTED = Desired(digest="b" * 64, title="digits-2.0.0", rollout="digits-2.0.0-7f3a")
_SAME = Desired(digest=_SERVED.digest, title="digits-1.0.0", rollout="r")


def test_a_board_differs_by_its_bundle_its_agent_or_its_runtime() -> None:
    known = {
        "old": Known(contact=Contact(agent="0.1.0", serving=_SERVED, said=1.0, seen=2.0), facts=_ZERO),
        "good": Known(contact=Contact(agent="0.2.1", serving=_SERVED, said=1.0), facts=_ZERO),
        "empty": Known(contact=Contact(agent="0.2.1", said=1.0), facts=_ZERO),
        "silent": Known(),
    }

    found = reconciliation.compare(
        known,
        known,
        desired={"old": _WANTED, "good": _SAME, "empty": _SAME},
        agent="0.2.1",
        runtimes={"old": "ai-edge-litert", "good": "tflite-runtime"},
    )

    assert [("old", True), ("good", False), ("empty", True), ("silent", True)] == [
        (each.board, each.differs) for each in found
    ]
    old, good, empty, silent = found
    assert Aspect(desired="digits-2.0.0", reported="digits-1.0.0", differs=True) == old.bundle
    assert Aspect(desired="0.2.1", reported="0.1.0", differs=True) == old.agent
    assert Aspect(desired="ai-edge-litert", reported="tflite-runtime==2.14.0", differs=True) == old.runtime
    assert (2.0, "digits-2.0.0-7f3a") == (old.seen, old.rollout)
    assert not good.runtime.differs
    assert Aspect(desired="digits-1.0.0", reported=None, differs=True) == empty.bundle
    assert not any(aspect.differs for aspect in (silent.bundle, silent.agent, silent.runtime))


def test_labels_are_set_and_taken_away() -> None:
    assert ({"a": "b", "c": ""}, frozenset({"d", "e-f"})) == labelling.parse(["a=b", "d-", "c=", "e-f-"])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["room"], "write key=value to set it, key- to take it away"),
        (["-"], "write key=value"),
        (["a=b", "a-"], "can't be set and taken away at once"),
        (["a=b c"], "write key=value"),
    ],
)
def test_what_is_neither_is_refused(words: list[str], said: str) -> None:
    with pytest.raises(UsageError) as refused:
        labelling.parse(words)

    assert said in str(refused.value)
