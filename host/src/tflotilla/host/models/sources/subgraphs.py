"""The entry points of a TFLite file: one is chosen, and what only the others need is left out. Pure.

What it does NOT do: read or write files.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tflotilla.host.models import flatbuffer
from tflotilla.host.models.sources import shapes
from tflotilla.shared.contract.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Options of operators that call another subgraph → the fields that name it.
_CALLS = {
    flatbuffer.SCHEMA.IfOptionsT: ("thenSubgraphIndex", "elseSubgraphIndex"),
    flatbuffer.SCHEMA.WhileOptionsT: ("condSubgraphIndex", "bodySubgraphIndex"),
    flatbuffer.SCHEMA.CallOnceOptionsT: ("initSubgraphIndex",),
    flatbuffer.SCHEMA.CallOptionsT: ("subgraph",),
}


def choose_signature(model: Any, wanted: str | None, where: str) -> bool:  # noqa: ANN401 - generated code without types
    """Leave only the subgraphs that one entry point needs, its own first; return whether anything was left out.

    Raises:
        UsageError: there are several and none was chosen, or there is none of that name.

    """
    signatures = {flatbuffer.text(entry.signatureKey): entry for entry in model.signatureDefs or ()}
    if wanted is None:
        if len(signatures) > 1:
            raise UsageError(
                f"{where} has several signatures; choose one with --signature: {', '.join(sorted(signatures))}"
            )
        start = next((int(entry.subgraphIndex) for entry in signatures.values()), 0)
    elif wanted not in signatures:
        raise UsageError(f"--signature: {where} has no {wanted!r}; {shapes.propose(wanted, sorted(signatures))}")
    else:
        start = int(signatures[wanted].subgraphIndex)
        model.signatureDefs = [signatures[wanted]]
    kept = list(_reached(model, start))
    if start == 0 and len(kept) == len(model.subgraphs):
        return False
    for index in kept:
        for options, field in _calls(model.subgraphs[index]):
            setattr(options, field, kept.index(getattr(options, field)))
    model.subgraphs = [model.subgraphs[index] for index in kept]
    for entry in model.signatureDefs or ():
        entry.subgraphIndex = 0
    return True


def _reached(model: Any, start: int) -> Iterator[int]:  # noqa: ANN401 - generated code without types
    seen, queue = {start}, [start]
    while queue:
        index = queue.pop(0)
        yield index
        for options, field in _calls(model.subgraphs[index]):
            called = int(getattr(options, field))
            if called not in seen:
                seen.add(called)
                queue.append(called)


def _calls(graph: Any) -> Iterator[tuple[Any, str]]:  # noqa: ANN401 - generated code without types
    for operator in graph.operators or ():
        for field in _CALLS.get(type(operator.builtinOptions), ()):
            yield operator.builtinOptions, field
