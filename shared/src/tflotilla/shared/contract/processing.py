"""How an image becomes a tensor and a tensor an answer. These values travel under the bundle's signature.

The code that obeys them is `shared.inference`: the same for calibration, evaluation and the board.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Colour = Literal["rgb", "bgr", "gray"]
Resize = Literal["stretch", "crop", "pad"]
Interpolation = Literal["nearest", "bilinear", "bicubic", "area"]
_COLOUR_CHANNELS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Preprocessing:
    """From an image to the real-valued input: decode, colour, resize, (x - mean) / std.

    `stretch` ignores the aspect ratio; `crop` fills and cuts the centre; `pad` fits and fills with black.
    `mean` and `std` are in units of 0..255 pixel values and hold one number, or one per channel.
    `draft` lets the JPEG decoder scale down while decoding: faster, and slightly different pixels, so it is
    part of the contract.
    """

    colour: Colour = "rgb"
    resize: Resize = "stretch"
    interpolation: Interpolation = "bilinear"
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    draft: bool = False

    def __post_init__(self) -> None:
        """Refuse statistics that can't fit the channels. Raises ValueError."""
        channels = 1 if self.colour == "gray" else _COLOUR_CHANNELS
        for name, values in (("mean", self.mean), ("std", self.std)):
            if len(values) not in (1, channels):
                message = f"{name} must hold 1 or {channels} numbers for colour {self.colour!r}, not {len(values)}"
                raise ValueError(message)
        if any(value == 0 for value in self.std):
            message = "std must not be 0"
            raise ValueError(message)


@dataclass(frozen=True, slots=True, kw_only=True)
class Postprocessing:
    """From output tensors to an answer.

    `classification` reads output 0 as scores and reports the `top_k` best; `softmax` is applied first where the
    model ends in logits. `detection` reads the four outputs of TFLite_Detection_PostProcess (boxes, classes,
    scores, count) and reports boxes above `score_threshold`. `raw` reports nothing but latency.
    """

    kind: Literal["classification", "detection", "raw"] = "classification"
    top_k: int = 3
    softmax: bool = False
    score_threshold: float = 0.5

    def __post_init__(self) -> None:
        """Refuse an answer of no entries. Raises ValueError."""
        if self.top_k < 1:
            message = f"top_k must be at least 1, not {self.top_k}"
            raise ValueError(message)
