"""What stays float in a model that finds things, and what is rewritten before anything is quantized."""

from __future__ import annotations

from tests import models_made
from tflotilla.host.models import finders, quantizable


def test_a_model_that_suppresses_no_boxes_is_quantized_as_a_whole() -> None:
    assert finders.kept(models_made.float_classifier()) == frozenset()


def test_a_model_whose_operators_are_all_known_stays_as_it_is() -> None:
    data = models_made.float_classifier()

    assert [quantizable.prepared(data, bits=bits) for bits in (8, 16)] == [data, data]
