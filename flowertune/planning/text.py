"""A plan as a person reads it."""

from textwrap import wrap
from typing import TYPE_CHECKING

from flowertune.base.text import MIB, counted, duration
from flowertune.config.settings import AUTO
from flowertune.planning.estimate import Plan, warnings
from flowertune.planning.published import ROWS, TOKENS, WHY

if TYPE_CHECKING:  # it needs torch, and a plan does not
    from flowertune.planning.probe import Probe

PARTS = {
    "weights": "base model's weights",
    "adapter": "adapter, gradient, optimizer",
    "activations": "activations kept for the backward pass",
    "one_layer": "the layer at work",
    "head": "logits and loss",
    "cuda": "CUDA itself (assumed)",
}


def as_text(plan: Plan) -> str:
    """Return the whole plan, ending in a line break."""
    blocks = [_head(plan), _communication(plan), _disk(plan), _memory(plan)]
    blocks += [_published(plan)] if plan.published else []
    blocks += [_workers(plan)] if plan.workers else []
    blocks.append(_time(plan))
    blocks.append(
        "\n".join(f"WARNING: {line}" for line in warnings(plan)) or "The run fits its budget."
    )
    return "\n\n".join(blocks) + "\n"


def _head(plan: Plan) -> str:
    cfg, shape = plan.cfg, plan.shape
    bits = cfg.model.quantization
    stored = f"{bits}-bit" if bits else f"not quantized ({cfg.model.dtype})"
    batch = cfg.train.training_arguments.per_device_train_batch_size
    micro = cfg.train.training_arguments.gradient_accumulation_steps
    steps = cfg.train.training_arguments.max_steps
    return "\n".join(
        (
            f"Plan for {cfg.static.challenge}, rules {cfg.static.rules}",
            f"  base model   {cfg.model.name}: {shape.parameters / 1e9:.3g} G parameters, {stored}",
            f"  adapter      LoRA r={cfg.model.lora.peft_lora_r} on "
            f"{', '.join(shape.adapted_modules)}: {shape.adapter_parameters / 1e6:.2f} M "
            f"parameters, {plan.communication.adapter_bytes / MIB:,.2f} MiB as "
            f"{cfg.train.transport}",
            f"  one client   {steps} steps x {batch * micro} rows = "
            f"{steps * batch * micro:,} rows a round",
        )
    )


def _communication(plan: Plan) -> str:
    spent = plan.communication
    share = spent.total_mib / spent.budget_mib
    counted = spent.counted_mib
    lines = [
        "Communication (tensor bytes, both directions)",
        f"  a round      {spent.clients} of {plan.supernodes} clients x {_each(plan)} = "
        f"{spent.round_mib:,.1f} MiB",
        f"  the run      {spent.rounds:,} rounds = {spent.total_mib:,.0f} MiB, {share:.1%} of "
        f"the {spent.budget_mib:,} MiB budget",
    ]
    if round(counted) != round(spent.total_mib):
        lines.append(
            f"  as counted   {counted:,.0f} MiB: the run's ledger counts each tensor's header, too"
        )
    return "\n".join((*lines, f"  would fit    {spent.rounds_that_fit:,} rounds"))


def _each(plan: Plan) -> str:
    """Return what one client gets and sends in a round, in MiB; the mean where that differs."""
    spent = plan.communication
    down, up = spent.traffic.down, spent.traffic.up
    messages = spent.clients * spent.rounds * MIB
    if {*down, *up} == {spent.clients * spent.adapter_bytes}:
        return f"2 x {spent.adapter_bytes / MIB:,.2f} MiB"
    each = f"({sum(down) / messages:,.2f} MiB down + {sum(up) / messages:,.2f} MiB up)"
    if len({*down}) == len({*up}) == 1:
        return f"{each} of {plan.cfg.strategy.name}"
    of_round = [(d + u) / MIB for d, u in zip(down, up, strict=True)]
    return (
        f"{each} of {plan.cfg.strategy.name} on average (rounds of {min(of_round):,.1f} to "
        f"{max(of_round):,.1f} MiB)"
    )


def _disk(plan: Plan) -> str:
    disk = plan.disk
    each = f"{disk.adapter_bytes / MIB:,.2f} MiB"
    lines = [
        f"Disk of the server: {disk.total_mib:,.0f} MiB, more where a strategy keeps tensors",
        f"  states       {disk.states:,} x {each} (train.keep-states), to resume and to show "
        "rounds that a verifier draws",
        f"  checkpoints  {disk.checkpoints:,} x {each} (train.save-every-round)",
    ]
    if disk.kept:
        lines.append(
            f"Disk of the clients, together: up to {disk.kept:,} x {each} = {disk.kept_mib:,.0f} "
            "MiB, what int8 cuts off (train.keep-states)"
        )
    return "\n".join(lines)


def _memory(plan: Plan) -> str:
    memory = plan.memory
    lines = [f"GPU memory of one client: about {memory.total:.1f} GB (estimate, from shapes)"]
    smaller = "one_layer" if memory.one_layer < memory.head else "head"
    for name, gb in vars(memory).items():
        note = "   (not at the same time)" if name == smaller else ""
        lines.append(f"  {gb:6.2f} GB   {PARTS[name]}{note}")
    given = plan.cfg.model.gradient_checkpointing
    how, otherwise = ("with", "without")[:: 1 if given else -1]
    auto = ", which auto does where that fits" if given == AUTO else ""
    batch = plan.cfg.train.training_arguments.per_device_train_batch_size
    lines += [
        f"  for {batch} rows of {plan.tokens} tokens, {how} gradient checkpointing ({otherwise} it "
        f"about {plan.other_memory.total:.1f} GB{auto});",
        "  shorter rows take less (--tokens)",
    ]
    if plan.gpu_gb is not None:
        lines.append(f"  this machine's GPU has {plan.gpu_gb:.1f} GB")
    return "\n".join(lines)


def _published(plan: Plan) -> str:
    width = max(len(row.setting) for row in plan.published)
    lines = [
        f"Beside what FlowerTune's documents publish ({ROWS} rows of up to {TOKENS} tokens)",
        f"  {'':{width}}   published   estimated",
    ]
    lines += [
        f"  {row.setting:{width}}   {row.published:6.2f} GB   {row.estimated:6.2f} GB"
        for row in plan.published
    ]
    return "\n".join((*lines, *wrap(WHY, 96, initial_indent="  ", subsequent_indent="  ")))


def _workers(plan: Plan) -> str:
    return (
        f"Workers: a simulation on this machine starts {plan.workers}; each is a process with its "
        "own copy of the model"
    )


def _time(plan: Plan) -> str:
    probe = plan.probe
    if probe is None or plan.client_seconds is None or plan.run_seconds is None:
        return "Time: not estimated; --probe measures a few steps on this machine."
    spent = plan.communication
    lines = [
        f"Time, measured here ({_device(probe)}; {probe.steps} steps after one to warm up)",
        f"  a step       {probe.step_seconds:.2f} s, {probe.tokens_per_second:,.0f} tokens/s",
        f"  a client     {duration(plan.client_seconds)} a round, after "
        f"{duration(probe.setup_seconds)} to load the model and data and warm up",
        f"  the run      {duration(plan.run_seconds)} of training if its {spent.clients} clients a "
        "round train one after another; k at a time, where the machine has room, take about 1/k",
    ]
    if probe.peak_gb is not None:
        lines.append(f"  GPU memory   {probe.peak_gb:.2f} GB reserved at the most")
    return "\n".join(lines)


def _device(probe: "Probe") -> str:
    if probe.device == "CPU":
        return f"CPU, {counted(probe.threads, 'thread')}"
    return probe.device
