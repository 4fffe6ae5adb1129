"""What a client does: train the adapter it is sent on its own partition, and send it back."""

import torch
from flowertune.base.seeds import key_of
from flwr.app import ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from peft.utils import get_peft_model_state_dict, set_peft_model_state_dict

from flowertune.base.cache import reuse
from flowertune.base.numbers import real, whole
from flowertune.base.quiet import hush
from flowertune.client.reply import answer
from flowertune.comms.codec import unpack
from flowertune.comms.nodes import answer_roll_call
from flowertune.config.checks import check_settings
from flowertune.data.loop import fit
from flowertune.data.steps import steps_of_round, tokens_in
from flowertune.profiling.messages import profiled
from flowertune.profiling.phases import profile_of
from flowertune.run.data_check import answer_lengths
from template.app.dataset import load_examples
from template.app.models import load_model, load_tokenizer

app = ClientApp(mods=[profiled])


@app.query("roll_call")
def roll_call(message: Message, context: Context) -> Message:
    """Say which partition this is and which locked values this client sees."""
    return answer_roll_call(message, context)


@app.query("lengths")
def lengths(message: Message, context: Context) -> Message:
    """Say how many tokens this client's rows have, for the report before training."""
    hush()
    return answer_lengths(message, check_settings(context.run_config), context)


@app.train()
def train(message: Message, context: Context) -> Message:
    """Train for ``max-steps`` steps from the adapter in the message; reply with the result."""
    hush()
    cfg = check_settings(context.run_config)
    profile = profile_of(cfg)
    partition = int(context.node_config["partition-id"])
    partitions = int(context.node_config["num-partitions"])
    config = message.content.config_records["config"]
    server_round = whole(config, "server-round")
    adapter = unpack(message.content.array_records["arrays"])
    trained = adapter
    metrics = {"num-examples": 1, "train-loss": 0.0, "tokens": 0}

    # Without steps there is nothing to read, tokenise or load: every client counts the same.
    if cfg["train.training-arguments.max-steps"] > 0:
        with profile.phase("load"):
            tokenizer = reuse(load_tokenizer, cfg, ("model.",))
            examples = load_examples(cfg, tokenizer, partition, partitions)
            model = reuse(load_model, cfg, ("model.",))
            set_peft_model_state_dict(model, adapter)
        steps = steps_of_round(examples, cfg, server_round, partition)
        torch.manual_seed(key_of("dropout", cfg["seed"], server_round, partition))
        metrics["num-examples"] = len(examples)
        metrics["tokens"] = tokens_in(steps)
        with profile.phase("train", tokens=metrics["tokens"]):
            metrics["train-loss"] = fit(
                model,
                steps,
                tokenizer.pad_token_id,
                real(config, "learning-rate"),
                cfg["train.training-arguments.weight-decay"],
                cfg["train.training-arguments.max-grad-norm"],
            )
        trained = get_peft_model_state_dict(model)

    with profile.phase("serve") as served:
        arrays = answer(adapter, trained, cfg, config, partition)
        served.nbytes = sum(len(array.data) for array in arrays.values())
    content = {
        "arrays": arrays,
        "metrics": MetricRecord(metrics),
        "client": ConfigRecord({"partition-id": partition}),
    }
    return Message(RecordDict(content), reply_to=message)
