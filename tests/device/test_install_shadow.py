"""A shadow in the table of a deployment: between a good probe and the switch, and never a reason to stop."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tflotilla.device import install
from tflotilla.device.choice import Choice
from tflotilla.device.install import (
    Broke,
    Event,
    Journal,
    Probe,
    Probed,
    Refused,
    Report,
    Save,
    Shadow,
    Shadowed,
    Verified,
)
from tflotilla.shared.contract import codec
from tflotilla.shared.contract.board import RuntimeOffer
from tflotilla.shared.contract.deployment import DeploymentState, ShadowReport

OLD, NEW = "a" * 64, "b" * 64
CHOICE = Choice(runtime=RuntimeOffer(name="ai-edge-litert", version="2.3.0"))
S = DeploymentState
SHADOWING = Journal(
    kind="deploy", deployment="d1", candidate=NEW, title="digits-2", champion=OLD, previous=None, shadow=50
)
SHADOWED = Shadowed(report=ShadowReport(inputs=50, agreed=48))
PROBED = Probed(choice=CHOICE)


def test_a_shadow_comes_between_a_good_probe_and_the_switch_and_stays_in_the_journal() -> None:
    probing, _actions = install.step(SHADOWING, Verified())
    shadowing, actions = install.step(probing, PROBED)

    assert shadowing.state is S.PROBING
    assert actions == (Shadow(candidate=NEW, champion=OLD, choice=CHOICE, inputs=50),)
    # Told twice, or of another attempt.
    assert install.step(shadowing, PROBED) == (shadowing, ())
    assert install.step(probing, SHADOWED) == (probing, ())

    switching, actions = install.step(shadowing, SHADOWED)
    assert switching.shadowed == SHADOWED.report
    assert actions[:2] == (
        Report(state=S.PROBING, detail="48 of 50 inputs are answered as by what serves"),
        Save(journal=switching),
    )
    for killed in (switching, replace(switching, state=S.CONFIRMING)):
        recovered, _actions = install.recover(killed, NEW)
        assert recovered is not None
        assert recovered.shadowed == SHADOWED.report


def test_why_nothing_was_compared_is_told_and_stops_nothing() -> None:
    shadowing = replace(SHADOWING, state=S.PROBING, choice=CHOICE)
    report = ShadowReport(inputs=0, agreed=0, reason="nothing served before")

    switching, actions = install.step(shadowing, Shadowed(report=report))

    assert switching.state is S.SWITCHING
    assert actions[0] == Report(state=S.PROBING, detail="not compared with what serves: nothing served before")


def test_killed_in_the_shadow_it_is_probed_and_shadowed_again() -> None:
    killed = replace(SHADOWING, state=S.PROBING, choice=CHOICE)
    verifying, _actions = install.recover(killed, OLD)
    assert verifying is not None

    probing, actions = install.step(verifying, Verified())
    assert (actions[-1], probing.choice) == (Probe(candidate=NEW), None)
    _shadowing, actions = install.step(probing, PROBED)
    assert isinstance(actions[-1], Shadow)


@pytest.mark.parametrize("failure", [Refused(error="ProbeError", detail="x"), Broke(error="BoardError", detail="x")])
def test_a_candidate_that_fails_its_probe_has_no_shadow(failure: Event) -> None:
    probing = replace(SHADOWING, state=S.PROBING)

    after, actions = install.step(probing, failure)

    assert after.state.final
    assert not any(isinstance(action, Shadow) for action in actions)


def test_a_journal_of_an_agent_without_shadows_is_read() -> None:
    document = codec.encode(replace(SHADOWING, shadow=0))
    del document["shadow"], document["shadowed"]

    assert codec.decode(Journal, document, "journal.json") == replace(SHADOWING, shadow=0)
