"""GPU memory of one client, added up from shapes: an estimate, not a measurement.

Counted are the tensors of a step at the longest row there can be. The output head's share and the
layers' are added up although they do not live at the same time: `nvidia-smi` shows what PyTorch's
allocator has reserved, and blocks cut for one are little use to the other. That is a choice, made
because the published values lie nearer to the sum than to the larger of the two; no number here
was fitted to them.
"""

from dataclasses import dataclass

from flowertune.config.settings import Settings
from flowertune.planning.architecture import Architecture

GB = 1e9
FLOAT32 = 4
# bitsandbytes keeps a float32 scale for every 64 values (4-bit) or every row (8-bit).
SCALE_BLOCK = 64
# What a process takes on the GPU before its first tensor; differs with driver and GPU.
CUDA_CONTEXT_GB = 0.5


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


def value_bytes(cfg: Settings) -> int:
    """Return the bytes of one activation, and of one weight that is not quantized.

    Under quantization PEFT keeps everything that is not quantized in float32, and activations
    follow. "auto" is taken as bfloat16, which it is on a GPU that has it.
    """
    if cfg.model.quantization or cfg.model.dtype == "float32":
        return FLOAT32
    return 2


def weight_bytes(shape: Architecture, bits: int, value: int) -> float:
    """Return the bytes of the base model's weights."""
    quantized = {
        4: shape.quantizable / 2 + shape.quantizable / SCALE_BLOCK * FLOAT32,
        8: shape.quantizable + shape.rows * FLOAT32,
        0: shape.quantizable * value,
    }
    return quantized[bits] + shape.kept * value


def layer_bytes(shape: Architecture, value: int, dropout_mask: int = 1) -> float:
    """Return the bytes per token that autograd keeps of one decoder layer (gated MLP, LoRA).

    The inputs of both norms in float32; queries, keys, values and the attention's output (keys
    and values are repeated to the number of query heads); gate, its activation and up; for each
    adapted layer its dropped-out input in float32 and the dropout's mask.
    """
    norms = 2 * shape.hidden * FLOAT32
    attention = 4 * shape.attention * value
    mlp = 3 * shape.intermediate * value
    lora = shape.adapted_inputs / shape.layers * (FLOAT32 + dropout_mask)
    return norms + attention + mlp + lora


def estimate(shape: Architecture, cfg: Settings, tokens: int | None = None) -> Memory:
    """Estimate one client's GPU memory.

    Parameters
    ----------
    tokens : int, optional
        Tokens of the longest row of a batch; ``train.seq-length``, the most there can be, if not
        given.
    """
    value = value_bytes(cfg)
    longest = cfg.train.seq_length if tokens is None else tokens
    count = cfg.train.training_arguments.per_device_train_batch_size * longest
    layer = count * layer_bytes(shape, value)
    # Gradients of the MLP's three wide tensors live while the layer's own tensors still do.
    gradients = count * 3 * shape.intermediate * value
    # Logits, a copy without the last column, their log-softmax; in the backward pass as many.
    head = count * shape.vocabulary * (value + 2 * FLOAT32)
    if cfg.model.gradient_checkpointing:
        kept, one_layer = count * shape.layers * shape.hidden * value, layer + gradients
    else:
        kept, one_layer = layer * shape.layers, gradients
    return Memory(
        weights=weight_bytes(shape, cfg.model.quantization, value) / GB,
        # The adapter, its gradient and AdamW's two moments, all float32.
        adapter=shape.adapter_parameters * 4 * FLOAT32 / GB,
        activations=kept / GB,
        one_layer=one_layer / GB,
        head=head / GB,
    )
