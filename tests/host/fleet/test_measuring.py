"""A benchmark's way to a board over SSH: what is asked of a board depends on what still has to be sent there."""

from __future__ import annotations

import dataclasses
import io
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from tests.host.fleet.test_push import make_bundle
from tflotilla.host.benchmarks.measuring import Measurer, Subject
from tflotilla.host.fleet import push
from tflotilla.host.fleet.agents import bootstrap
from tflotilla.shared.contract.benchmark import Configuration, Method
from tflotilla.shared.inference import sample_set
from tflotilla.shared.inference.sample_set import SampleSet

if TYPE_CHECKING:
    from collections.abc import Callable

    from tflotilla.host.benchmarks.results import BoardRun
    from tflotilla.host.bundles.archive import Bundle
    from tflotilla.host.fleet.inventory.fleet import Fleet

pytestmark = pytest.mark.sshd


def labelled(fleet: Fleet, **labels: str) -> Fleet:
    entry = dataclasses.replace(fleet.board("pi-1"), labels=labels)
    return dataclasses.replace(fleet, boards={"pi-1": entry})


def measured(
    fleet: Fleet, bundle: Bundle, samples: bytes | None = None, tell: Callable[[str], None] = lambda _text: None
) -> BoardRun:
    quick = Method(min_runs=11, min_seconds=0.0, warmup_runs=1)
    measurer = Measurer(fleet=fleet, way="ssh", tell=tell)
    subject = Subject(bundle=bundle, samples=samples)
    (run,) = measurer.measure(("pi-1",), subject, quick, lambda _facts: (Configuration(),))
    return run


@pytest.mark.usefixtures("warm")
def test_what_a_board_has_is_measured_even_where_it_would_not_be_sent(fleet: Fleet) -> None:
    kitchen, attic = labelled(fleet, room="kitchen"), labelled(fleet, room="attic")
    bootstrap.bootstrap("pi-1", kitchen)
    here, elsewhere = (make_bundle(fleet, number, audience={"room": "kitchen"}) for number in (1, 2))
    push.deploy("pi-1", kitchen, here)

    # A full disk is such a reason, too: it keeps bundles out, and does not keep those from running that are in.
    run = measured(attic, here)
    refused = measured(attic, elsewhere)

    assert run.error is None
    assert [cell.error for cell in run.cells] == [None]
    assert refused.error is not None
    assert "nothing was sent" in refused.error
    assert refused.request.bundle == elsewhere.digest


@pytest.mark.usefixtures("warm")
def test_samples_that_a_board_has_are_not_sent_again(fleet: Fleet) -> None:
    bootstrap.bootstrap("pi-1", fleet)
    bundle = make_bundle(fleet)
    picture = io.BytesIO()
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(picture, "png")
    samples = sample_set.save(SampleSet(images=(picture.getvalue(),)))
    told: list[str] = []

    runs = [measured(fleet, bundle, samples, told.append) for _ in range(2)]

    assert [run.error for run in runs] == [None, None]
    assert [cell.error for run in runs for cell in run.cells] == [None, None]
    assert told == ["pi-1: sending tiny-1.0.1", "pi-1: sending samples, 0.0 MB"]
