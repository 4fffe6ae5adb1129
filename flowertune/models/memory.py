"""GPU memory of one client's training, added up from shapes: an estimate, not a measurement.

``shapes_of`` reads the shapes of a model, which may have no weights (``models.config.skeleton``);
``estimate`` adds up the tensors that live at the worst moment of a step.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import torch

GB = 1e9
FLOAT32 = 4
# bitsandbytes keeps a float32 scale for every 64 values (4-bit) or every row (8-bit).
SCALE_BLOCK = 64
# What a process takes on the GPU before its first tensor; differs with driver and GPU.
CUDA_CONTEXT_GB = 0.5


@dataclass(frozen=True)
class Shapes:
    """What the estimate needs to know of a model; counts are numbers of values, not bytes.

    ``quantizable`` counts the weights that bitsandbytes quantizes (linear layers but the output
    head), ``rows`` their output rows, ``kept`` everything else. ``adapted_inputs`` is the sum of
    the input widths of all adapted layers. ``intermediate`` is the width inside a layer's MLP,
    ``attention`` that of all its query heads together.
    """

    quantizable: int
    rows: int
    kept: int
    layers: int
    hidden: int
    intermediate: int
    attention: int
    vocabulary: int
    adapter: int
    adapted_inputs: int

    @property
    def parameters(self) -> int:
        """The base model's parameters."""
        return self.quantizable + self.kept


@dataclass(frozen=True)
class Work:
    """What one forward and backward pass is asked to do.

    Attributes
    ----------
    bits
        Of a quantized weight: 4 or 8; 0 for none.
    value
        Bytes of an activation, and of a weight that is not quantized: 2 or 4.
    rows, tokens
        How many rows the pass has, and how many tokens each, padding counted.
    checkpointing
        Whether layers are computed again in the backward pass.
    """

    bits: int
    value: int
    rows: int
    tokens: int
    checkpointing: bool


@dataclass(frozen=True)
class Memory:
    """One client's GPU memory by what takes it, in GB (10^9 bytes).

    ``activations`` is what the forward pass leaves for the backward pass (with gradient
    checkpointing the input of every layer), ``one_layer`` what the layer at work takes beyond
    that, ``head`` the logits and their loss.
    """

    weights: float
    adapter: float
    activations: float
    one_layer: float
    head: float
    cuda: float = CUDA_CONTEXT_GB

    @property
    def total(self) -> float:
        """All of it, in GB."""
        return sum(vars(self).values())


def shapes_of(base: Any, adapter: Mapping[str, tuple[int, ...]]) -> Shapes:
    """Return the shapes of a base model, loaded or on the meta device.

    Parameters
    ----------
    base : PreTrainedModel
        The base model; its layers may be quantized.
    adapter : Mapping[str, tuple[int, ...]]
        The shapes of the adapter's tensors, by name.
    """
    head = base.get_output_embeddings()
    linear = [
        (m.in_features, m.out_features)
        for m in base.modules()
        if isinstance(m, torch.nn.Linear) and m is not head
    ]
    quantizable = sum(i * o for i, o in linear)
    whole = sum(
        p.numel()
        for module in base.modules()
        if not isinstance(module, torch.nn.Linear) or module is head
        for p in module.parameters(recurse=False)
    )
    biases = sum(
        m.bias.numel()
        for m in base.modules()
        if isinstance(m, torch.nn.Linear) and m is not head and m.bias is not None
    )
    tied = head is not None and head.weight is base.get_input_embeddings().weight
    kept = whole + biases - (head.weight.numel() if tied else 0)
    text = base.config.get_text_config()
    heads = text.num_attention_heads
    width = getattr(text, "head_dim", None) or text.hidden_size // heads
    return Shapes(
        quantizable=quantizable,
        rows=sum(outputs for _, outputs in linear),
        kept=kept,
        layers=text.num_hidden_layers,
        hidden=text.hidden_size,
        intermediate=getattr(text, "intermediate_size", None) or 4 * text.hidden_size,
        attention=heads * width,
        vocabulary=text.vocab_size,
        adapter=sum(map(prod, adapter.values())),
        adapted_inputs=sum(shape[-1] for name, shape in adapter.items() if "lora_A" in name),
    )


def weight_bytes(shapes: Shapes, bits: int, value: int) -> float:
    """Return the bytes of the base model's weights."""
    quantized = {
        4: shapes.quantizable / 2 + shapes.quantizable / SCALE_BLOCK * FLOAT32,
        8: shapes.quantizable + shapes.rows * FLOAT32,
        0: shapes.quantizable * value,
    }
    return quantized[bits] + shapes.kept * value


def layer_bytes(shapes: Shapes, value: int, dropout_mask: int = 1) -> float:
    """Return the bytes per token that autograd keeps of one decoder layer (gated MLP, LoRA).

    The inputs of both norms in float32; queries, keys, values and the attention's output (keys
    and values are repeated to the number of query heads); gate, its activation and up; for each
    adapted layer its dropped-out input in float32 and the dropout's mask.
    """
    norms = 2 * shapes.hidden * FLOAT32
    attention = 4 * shapes.attention * value
    mlp = 3 * shapes.intermediate * value
    lora = shapes.adapted_inputs / shapes.layers * (FLOAT32 + dropout_mask)
    return norms + attention + mlp + lora


def estimate(shapes: Shapes, work: Work) -> Memory:
    """Estimate one client's GPU memory at the worst moment of a step."""
    value = work.value
    count = work.rows * work.tokens
    layer = count * layer_bytes(shapes, value)
    # Gradients of the MLP's three wide tensors live while the layer's own tensors still do.
    gradients = count * 3 * shapes.intermediate * value
    # Logits, a copy without the last column, their log-softmax; in the backward pass as many.
    head = count * shapes.vocabulary * (value + 2 * FLOAT32)
    if work.checkpointing:
        kept, one_layer = count * shapes.layers * shapes.hidden * value, layer + gradients
    else:
        kept, one_layer = layer * shapes.layers, gradients
    return Memory(
        weights=weight_bytes(shapes, work.bits, value) / GB,
        # The adapter, its gradient and AdamW's two moments, all float32.
        adapter=shapes.adapter * 4 * FLOAT32 / GB,
        activations=kept / GB,
        one_layer=one_layer / GB,
        head=head / GB,
    )
