"""The child in which a delegate runs for the first time: CPU and delegate must agree on the bundle's golden inputs.

XNNPACK is off for the delegate's run, so that every node taken was taken by the delegate. It may crash or hang: that
is what it is for.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from tflotilla.device import child
from tflotilla.device.bundle_folder import BundleFolder
from tflotilla.device.delegates.external import TrialReport, TrialSpec
from tflotilla.shared.contract.errors import TflotillaError
from tflotilla.shared.inference import goldens, runtime
from tflotilla.shared.inference.runtime import Delegate, LoadedModel, LoadOptions

if TYPE_CHECKING:
    from tflotilla.shared.inference.runtime import Tensor


def main() -> int:
    """Answer one TrialSpec with one TrialReport."""
    return child.answer_once(TrialSpec, try_out)


def try_out(spec: TrialSpec) -> TrialReport:
    """Compare the delegate with the CPU; never raises an error of ours."""
    try:
        reason = _objection(spec)
    except TflotillaError as error:
        reason = str(error)
    return TrialReport(ok=reason is None, reason=reason)


def _objection(spec: TrialSpec) -> str | None:
    configured = spec.inference.delegate
    if configured is None:
        return "no delegate is configured"
    bundle = BundleFolder.open(Path(spec.bundle))
    policy = bundle.manifest.goldens
    vectors = goldens.load(bundle.goldens())
    adapter = runtime.find(spec.inference.runtime)
    on_cpu = LoadOptions(num_threads=spec.inference.num_threads, xnnpack=False)
    delegate = Delegate(library=configured.library, options=configured.options)

    expected = _outputs(adapter.load(bundle.model(), on_cpu), vectors)
    accelerated = adapter.load(bundle.model(), replace(on_cpu, delegate=delegate))
    if accelerated.delegated_nodes == 0:
        return "the delegate takes no node of this model"
    for wanted, got in zip(expected, _outputs(accelerated, vectors), strict=True):
        verdict = goldens.compare(wanted, got, accelerated.outputs, policy)
        if not verdict.ok:
            return f"the delegate computes something else than the CPU: {verdict.reason}"
    return None


def _outputs(model: LoadedModel, vectors: goldens.GoldenVectors) -> tuple[tuple[Tensor, ...], ...]:
    outputs = []
    for tensors in vectors.inputs:
        model.set_inputs(tensors)
        model.invoke()
        outputs.append(model.get_outputs())
    return tuple(outputs)


if __name__ == "__main__":
    sys.exit(main())
