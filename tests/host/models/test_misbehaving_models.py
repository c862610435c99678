"""The committed models that misbehave are what their generator makes."""

from __future__ import annotations

import pytest

from tests import misbehaving_models, models_made


@pytest.mark.parametrize("name", sorted(misbehaving_models.MISBEHAVING))
def test_a_committed_model_is_what_its_generator_makes(name: str) -> None:
    assert misbehaving_models.MISBEHAVING[name]() == models_made.read(name)
