"""A model's configuration and shapes, without its weights."""

from typing import Any

import torch

from flowertune.base.errors import UserError
from flowertune.base.progress_bars import quiet_models
from flowertune.base.text import one_line
from flowertune.config.settings import WHERE, Settings
from flowertune.models.source import Source

_BYTES = 8 * 2**20
_LAYERS = 1000  # far more than any model has; shapes of each are made
# Encoders that transformers lists among models that continue texts. Their tokens see later ones,
# unless this value of their configuration is true; without one, always.
_SEES_LATER = {
    "bert": "is_decoder", "bert-generation": "is_decoder", "big_bird": "is_decoder",
    "camembert": "is_decoder", "data2vec-text": "is_decoder", "electra": "is_decoder",
    "ernie": "is_decoder", "megatron-bert": "is_decoder", "rembert": "is_decoder",
    "roberta": "is_decoder", "roberta-prelayernorm": "is_decoder",
    "roc_bert": "is_decoder", "roformer": "is_decoder", "xlm": "causal",
    "xlm-roberta": "is_decoder", "xlm-roberta-xl": "is_decoder", "xmod": "is_decoder",
    "cpmant": "", "xlnet": "",
}  # fmt: skip


def read_config(source: Source) -> Any:
    """Return the transformers configuration of a model.

    Raises
    ------
    UserError
        If it is missing, damaged, of an architecture that transformers does not know, or of one
        whose tokens see later ones.
    """
    quiet_models()
    # Late: transformers takes seconds to import, and a server needs it for shapes only.
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, AutoConfig, PreTrainedConfig

    if source.folder:
        file = source.folder / "config.json"
        if not file.is_file():
            raise source.refusal(f"{source.folder} holds no config.json")
        if file.stat().st_size > _BYTES:
            raise source.refusal(f"its config.json has {file.stat().st_size:,} bytes")
    try:
        values, _ = PreTrainedConfig.get_config_dict(source.path, **source.arguments)
        how = values.get("quantization_config")
        if how is not None and not isinstance(how, dict):
            raise source.refusal(
                f"its config.json says quantization_config is {one_line(repr(how), 60)}, not an "
                "object"
            )
        config = AutoConfig.from_pretrained(source.path, **source.arguments)
        layers = config.get_text_config().num_hidden_layers
    except Exception as error:  # transformers and what it reads with raise many kinds
        raise source.unusable("its config.json", error) from error
    if not isinstance(layers, int) or not 1 <= layers <= _LAYERS:
        raise source.refusal(f"its config.json says num_hidden_layers is {one_line(repr(layers))}")
    own_code = getattr(config, "auto_map", None) or {}
    if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING and "AutoModelForCausalLM" not in own_code:
        raise source.refusal(f"it is of type {config.model_type}, which does not continue texts")
    if config.model_type == "reformer":
        raise source.refusal(
            "it is of type reformer, which trains on rows of whole chunks only, and rows here are "
            "as long as their texts"
        )
    value = _SEES_LATER.get(config.model_type)
    if value is not None and not getattr(config, value, False):
        cure = f"set {value} to true in its config.json if it was trained so, or {source.cure}"
        raise source.refusal(
            f"it is of type {config.model_type}, in which tokens see those that come after them, "
            "so that training would show it the answers",
            cure if value else None,
        )
    return config


def read_generation_config(source: Source, config: Any) -> Any:
    """Return what a model's files say about generation; transformers' defaults where they do not.

    Parameters
    ----------
    config : PretrainedConfig
        The model's configuration.

    Raises
    ------
    UserError
        If its generation_config.json is damaged.
    """
    # Late, as above.
    from transformers import GenerationConfig

    try:
        if not source.holds("generation_config.json"):
            return GenerationConfig.from_model_config(config)
        return GenerationConfig.from_pretrained(source.path, **source.file_arguments)
    except Exception as error:  # as above
        raise source.unusable("its generation_config.json", error) from error


def skeleton(source: Source, config: Any = None) -> Any:
    """Return a model's architecture on the meta device: names and shapes, no weights.

    Parameters
    ----------
    config : PretrainedConfig, optional
        Its configuration, where it is known.

    Raises
    ------
    UserError
        If its configuration cannot be used.
    """
    # Late, as above.
    from transformers import AutoModelForCausalLM

    config = config or read_config(source)
    try:
        with torch.device("meta"):
            return AutoModelForCausalLM.from_config(
                config, trust_remote_code=source.trust_remote_code
            )
    except Exception as error:  # a configuration can be wrong in any way
        raise source.unusable("the model that its config.json describes", error) from error


def positions(config: Any) -> int | None:
    """Return how many tokens a model was made for, None where its configuration does not say."""
    most = getattr(config.get_text_config(), "max_position_embeddings", None)
    return most if isinstance(most, int) and most > 0 else None


def check_positions(cfg: Settings, config: Any) -> None:
    """Refuse rows that are longer than what the model was made for.

    Raises
    ------
    UserError
        If ``train.seq-length`` is above the model's positions.
    """
    most, length = positions(config), cfg.train.seq_length
    if most is not None and length > most:
        raise UserError(
            f"train.seq-length is {length}, and {cfg.model.name} takes at most {most} tokens "
            f"(max_position_embeddings of its config.json); use at most that ({WHERE})."
        )
