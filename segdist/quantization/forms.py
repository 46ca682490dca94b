"""The forms of an int8 graph: what a quantizer gave, laid out for the CPU that will run it."""

from __future__ import annotations

from typing import Literal, get_args

import onnx

from segdist.quantization.passes.pairs import keep_logits_fp32, remove_idle_pairs
from segdist.quantization.passes.pixels import take_pixels
from segdist.quantization.passes.upsampling import from_shuffle, to_shuffle
from segdist.quantization.passes.weights import SHORT_BITS, shorten_weights

Form = Literal["transposed", "shuffle"]
"""Transposed convolutions in int8 (faster with VNNI), or as 1x1 convolutions and DepthToSpace (faster without)."""
FORMS: tuple[Form, ...] = get_args(Form)


def best_form(vnni: bool) -> tuple[Form, int]:
    """The form and the bits of a weight that a CPU is given before anything is measured on it."""
    return ("transposed", 8) if vnni else ("shuffle", SHORT_BITS)


def for_quantizer(fp32: onnx.ModelProto) -> onnx.ModelProto:
    """The prepared model as quantizers take it: without transposed convolutions, which they leave in fp32."""
    return to_shuffle(fp32)


def lay_out(
    quantized: onnx.ModelProto, fp32: onnx.ModelProto, given: onnx.ModelProto, form: Form, weight_bits: int
) -> onnx.ModelProto:
    """The int8 model that runs: uint8 pixels in, fp32 logits out, no idle rounding.

    Args:
        quantized: what a quantizer made of ``given``.
        fp32: the prepared model itself.
        given: what :func:`for_quantizer` made of it.
        form: see :data:`Form`.
        weight_bits: 8, or 7 for a CPU without VNNI.
    """
    model = remove_idle_pairs(take_pixels(keep_logits_fp32(quantized), given))
    if weight_bits < 8:
        model = shorten_weights(model, given, weight_bits)
    if form == "transposed":
        model = from_shuffle(model, fp32, weight_bits)
    return model
