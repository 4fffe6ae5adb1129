"""GPU memory of one client's training, added up from shapes: an estimate, not a measurement.

``shapes_of`` reads the shapes of a model, which may have no weights (``models.config.skeleton``);
``estimate`` adds up the tensors that live at the worst moment of a step: either while the loss is
computed, or while the gradients of a layer are. What it leaves out is small, or no tensor: blocks
that PyTorch's allocator has reserved and cannot use, and CUDA's own memory.

The tests hold it to a trace of the training loop (``tests/trace``).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

from flowertune.config.optimizers import STATE_BYTES
from flowertune.config.settings import ADAMW, SHIFTED, Settings

GB = 1e9
FLOAT32 = 4
# bitsandbytes keeps a float32 scale for every 64 values (4-bit) or every row (8-bit).
SCALE_BLOCK = 64
# What a process takes on the GPU before its first tensor; differs with driver and GPU.
CUDA_CONTEXT_GB = 0.5


@dataclass(frozen=True)
class Shapes:
    """What the estimate needs to know of a model; counts are numbers of values, not bytes.

    Attributes
    ----------
    quantizable, rows
        The weights that bitsandbytes quantizes (linear layers but the output head), and their
        output rows.
    kept
        All other weights.
    widest
        The weights of the largest layer that is quantized.
    layers, hidden, vocabulary
        Of the model.
    attention
        The width of a layer's query heads together.
    normed
        The width of what a layer normalizes in float32, all its norms together.
    inner
        The width of what its MLP keeps for the backward pass.
    intermediate
        The width of the input of the MLP's last linear layer.
    adapter
        The adapter's values.
    adapted_inputs
        The widths of the inputs of all adapted layers together.
    """

    quantizable: int
    rows: int
    kept: int
    widest: int
    layers: int
    hidden: int
    vocabulary: int
    attention: int
    normed: int
    inner: int
    intermediate: int
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
    answer
        How many tokens of a row are trained on; all of them if None.
    moments
        Bytes that are kept for each value that is trained beside it and its gradient.
    """

    bits: int
    value: int
    rows: int
    tokens: int
    checkpointing: bool
    answer: int | None = None
    moments: float = STATE_BYTES[ADAMW]


@dataclass(frozen=True)
class Memory:
    """One client's GPU memory by what takes it, in GB (10^9 bytes).

    ``activations`` is what the forward pass leaves for the backward pass (with gradient
    checkpointing the input of every layer); ``one_layer`` what the layer at work takes beyond
    that, ``head`` what logits and loss take. The two do not live at the same time: the larger one
    counts.
    """

    weights: float
    adapter: float
    activations: float
    one_layer: float
    head: float
    cuda: float = CUDA_CONTEXT_GB

    @property
    def tensors(self) -> float:
        """All that is tensors, at the worst moment, in GB."""
        moment = max(self.one_layer, self.head)
        return self.weights + self.adapter + self.activations + moment

    @property
    def total(self) -> float:
        """All of it, in GB."""
        return self.tensors + self.cuda


def shapes_of(base: Any, adapter: Mapping[str, tuple[int, ...]]) -> Shapes:
    """Return the shapes of a base model, loaded or on the meta device.

    Parameters
    ----------
    base : PreTrainedModel
        The base model; its layers may be quantized or adapted.
    adapter : Mapping[str, tuple[int, ...]]
        The shapes of the adapter's tensors, by name.
    """
    # Late: torch takes seconds to import, and a plan that was made before does without.
    import torch

    head = base.get_output_embeddings()
    modules = [(name, module) for name, module in base.named_modules() if "lora_" not in name]
    linear = {n: m for n, m in modules if isinstance(m, torch.nn.Linear) and m is not head}
    counted: set[int] = set()
    kept, rows, weights = 0, 0, [0]
    for module_name, module in modules:
        for name, parameter in module.named_parameters(recurse=False):
            if id(parameter) in counted:  # several modules may share it
                continue
            counted.add(id(parameter))
            if module_name in linear and name == "weight":
                weights.append(module.in_features * module.out_features)
                rows += module.out_features
            else:
                kept += parameter.numel()
    text = base.config.get_text_config()
    hidden = _number(text, "hidden_size")
    heads = _number(text, "num_attention_heads")
    width = _number(text, "head_dim") or (hidden // heads if heads else 0)
    # Layers without attention heads (state spaces) keep about as much.
    attention = heads * width or hidden
    layers = _number(text, "num_hidden_layers") or 1
    intermediate, inner = _mlp(linear, text)
    return Shapes(
        quantizable=sum(weights),
        rows=rows,
        kept=kept,
        widest=max(weights),
        layers=layers,
        hidden=hidden,
        vocabulary=_number(text, "vocab_size"),
        attention=attention,
        normed=_normed(modules, text, attention, width) // layers,
        inner=inner,
        intermediate=intermediate,
        adapter=sum(map(prod, adapter.values())),
        adapted_inputs=sum(shape[-1] for name, shape in adapter.items() if "lora_A" in name),
    )


def _number(text: Any, name: str) -> int:
    """A size of a model by its configuration; the largest of several, 0 where layers differ."""
    try:
        value = getattr(text, name, None)
    except Exception:  # transformers' own kind, where layers differ
        return 0
    sizes = value if isinstance(value, list | tuple) else [value]
    return max((size for size in sizes if isinstance(size, int)), default=0)


def _mlp(linear: Mapping[str, Any], text: Any) -> tuple[int, int]:
    """The width of the MLP's inside, and of what it keeps."""
    hidden = _number(text, "hidden_size")
    intermediate = _number(text, "intermediate_size") or 4 * hidden
    experts = _number(text, "num_experts_per_tok")
    if experts:
        intermediate = experts * (_number(text, "moe_intermediate_size") or intermediate)
    # A gate, its activation, and what it lets through; where there is none, the activation's input.
    wide = {m.out_features for m in linear.values() if m.in_features == hidden}
    names = {name.rpartition(".")[2] for name in linear}
    gated = experts or 2 * intermediate in wide or any("gate" in name for name in names)
    return intermediate, intermediate * (3 if gated else 1)


def _normed(modules: list[tuple[str, Any]], text: Any, attention: int, width: int) -> int:
    """The width of what RMS norms take in float32, all layers together."""
    hidden = _number(text, "hidden_size")
    whole = 0
    for name, module in modules:
        weight = getattr(module, "weight", None)
        if "RMSNorm" not in type(module).__name__ or weight is None:
            continue
        if weight.shape == (width,) and width != hidden:
            of_keys = name.rpartition(".")[2].startswith("k")
            whole += (_number(text, "num_key_value_heads") * width if of_keys else 0) or attention
        else:
            whole += weight.numel()
    return whole


def weight_bytes(shapes: Shapes, bits: int, value: int) -> float:
    """Return the bytes of the base model's weights."""
    quantized = {
        4: shapes.quantizable / 2 + shapes.quantizable / SCALE_BLOCK * FLOAT32,
        8: shapes.quantizable + shapes.rows * FLOAT32,
        0: shapes.quantizable * value,
    }
    return quantized[bits] + shapes.kept * value


def layer_bytes(shapes: Shapes, work: Work, dropout_mask: int = 1) -> float:
    """Return the bytes per token that autograd keeps of one decoder layer.

    What its norms take in float32; queries, keys, values and the attention's output (keys and
    values are repeated to the number of query heads); what the MLP keeps; the attention's mask; for
    each adapted layer its dropped-out input in float32 and the dropout's mask.
    """
    attention = 4 * shapes.attention * work.value
    mask = work.tokens * work.value
    lora = shapes.adapted_inputs / shapes.layers * (FLOAT32 + dropout_mask)
    return shapes.normed * FLOAT32 + attention + shapes.inner * work.value + mask + lora


def int8_bytes(shapes: Shapes, work: Work) -> int:
    """Return the bytes per token that 8-bit layers keep of one decoder layer: their inputs."""
    return (2 * shapes.hidden + shapes.intermediate) * work.value if work.bits == 8 else 0


def work_of(cfg: Settings, tokens: int) -> Work:
    """Return what one forward and backward pass of a run has to do, with rows of ``tokens``.

    Where ``model.gradient-checkpointing`` is "auto", layers are computed again.
    """
    return Work(
        bits=cfg.model.quantization,
        # "auto" is a type of 16 bits on a GPU.
        value=FLOAT32 if cfg.model.dtype == "float32" else 2,
        rows=cfg.train.training_arguments.per_device_train_batch_size,
        tokens=tokens,
        checkpointing=bool(cfg.model.gradient_checkpointing),
        # The first adapter stays on the model, where it was taken out of the weights.
        moments=STATE_BYTES[cfg.train.optimizer] + FLOAT32 * (cfg.model.lora.init in SHIFTED),
    )


def estimate(shapes: Shapes, work: Work) -> Memory:
    """Estimate one client's GPU memory at the worst moment of a step."""
    value, count = work.value, work.rows * work.tokens
    layer = layer_bytes(shapes, work) + int8_bytes(shapes, work)
    # Gradients: of three wide tensors of the MLP, and of a layer's output; a weight as it is used.
    gradients = count * (3 * shapes.intermediate + shapes.hidden) * value
    gradients += shapes.widest * value if work.bits else 0
    if work.checkpointing:
        kept = shapes.layers * shapes.hidden * value
        one_layer = count * (layer + shapes.hidden * FLOAT32) + gradients
    else:
        kept = shapes.layers * layer
        one_layer = gradients
    # Their log-softmax in float32, its gradient, and the gradient of the logits.
    answers = work.rows * (work.tokens if work.answer is None else work.answer)
    head = answers * shapes.vocabulary * 3 * FLOAT32 + count * shapes.hidden * (FLOAT32 + value)
    return Memory(
        weights=weight_bytes(shapes, work.bits, value) / GB,
        # The adapter and its gradient in float32, and what the optimizer keeps.
        adapter=shapes.adapter * (2 * FLOAT32 + work.moments) / GB,
        activations=count * kept / GB,
        one_layer=one_layer / GB,
        head=head / GB,
    )
