"""From a bundle and a configuration to a model that runs: the one way worker, probe and benchmark load.

A configured delegate that can't be used is a reason in the report, never a failure. Only children import this.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from tflotilla.shared.contract.board import RuntimeOffer
from tflotilla.shared.contract.errors import ConfigError, DelegateError
from tflotilla.shared.contract.messages import DelegateReport
from tflotilla.shared.inference import runtime
from tflotilla.shared.inference.runtime import Delegate, LoadedModel, LoadOptions

if TYPE_CHECKING:
    from tflotilla.device.bundle_folder import BundleFolder
    from tflotilla.shared.contract.agent_config import InferenceConfig
    from tflotilla.shared.contract.tensors import TensorSpec
    from tflotilla.shared.inference.runtime import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """A model in a runtime, and how it came there; `load_ns` is without the delegate's trial."""

    runtime: RuntimeOffer
    model: LoadedModel
    delegate: DelegateReport
    load_ns: int


def load(bundle: BundleFolder, inference: InferenceConfig) -> Loaded:
    """Check the model's bytes, settle the delegate, load.

    Raises:
        ConfigError: the runtime is still `auto`; deciding is the supervisor's business.
        BoardError: the runtime isn't there, or the bundle can't be read.
        VerificationError: the model's bytes have changed.
        ModelError: the runtime refuses the model.

    """
    if inference.runtime == "auto":
        message = "inference.runtime 'auto' must be decided before a model is loaded"
        raise ConfigError(message)
    adapter = runtime.find(inference.runtime)
    report = DelegateReport(requested=None, active=None)
    if inference.delegate is not None:
        # It brings subprocess along: 2 MB that most boards don't need.
        from tflotilla.device.delegates import external

        report = external.settle(bundle, inference)
    path = bundle.model()
    options = LoadOptions(num_threads=inference.num_threads, xnnpack=inference.xnnpack)
    begin = time.perf_counter_ns()
    model = None
    if inference.delegate is not None and report.active is not None:
        delegate = Delegate(library=inference.delegate.library, options=inference.delegate.options)
        try:
            model = adapter.load(
                path, LoadOptions(num_threads=options.num_threads, xnnpack=options.xnnpack, delegate=delegate)
            )
        except DelegateError as error:
            report = DelegateReport(requested=report.requested, active=None, reason=str(error))
    if model is None:
        model = adapter.load(path, options)
    return Loaded(runtime=adapter.offer, model=model, delegate=report, load_ns=time.perf_counter_ns() - begin)


def zeros(inputs: tuple[TensorSpec, ...]) -> tuple[Tensor, ...]:
    """Return inputs of zeros, for a first run whose answer nobody reads; a dynamic dimension becomes 1."""
    return tuple(
        np.zeros(
            tuple(max(1, size) for size in spec.shape),
            dtype=np.object_ if spec.dtype == "string" else np.dtype(spec.dtype),
        )
        for spec in inputs
    )
