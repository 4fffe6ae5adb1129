"""What a model's generation_config asks for, and what a score makes of it.

The official scorers call transformers' `generate` with the model's generation_config in force and
override a few of its settings. The official suite does the same; where it cannot, the result names
the departure. The standard suite is greedy whatever the model says.
"""

import copy
from dataclasses import dataclass
from typing import Any, Literal

from flowertune.base.errors import UserError
from flowertune.base.text import one_line

# How the official scorer of a challenge calls `generate`, and whether its batches are replayed:
# greedy: it says so itself (general-nlp, medical); drawn: with its own temperature (code); rows and
# batches: it leaves the choice to the model (finance). The standard suite is plain.
Way = Literal["greedy", "drawn", "rows", "batches", "plain"]

_TOKENS = ("bos_token_id", "eos_token_id", "pad_token_id")
# Never change an answer: who wrote the file, what is returned beside the tokens, how the same
# tokens are computed faster. `max_length` is always overridden.
_IRRELEVANT = {
    *(*_TOKENS, "decoder_start_token_id", "transformers_version", "_from_model_config"),
    *("chat_format", "max_window_size", "max_matrix_size", "trust_remote_code", "max_length"),
    *("output_attentions", "output_hidden_states", "output_scores", "output_logits"),
    *("return_dict_in_generate", "use_cache", "cache_implementation", "cache_config"),
    *("compile_config", "disable_compile", "low_memory", "prefill_chunk_size", "max_cache_len"),
    *("continuous_batching_config", "is_assistant", "speculation_type", "use_mtp"),
    *("prompt_lookup_num_tokens", "max_matching_ngram_size", "num_assistant_tokens"),
    *("num_assistant_tokens_schedule", "assistant_confidence_threshold", "assistant_early_exit"),
    *("assistant_ensemble_weight", "assistant_lookbehind", "target_lookbehind"),
}
_FILTERS = {"min_p", "typical_p", "epsilon_cutoff", "eta_cutoff", "top_h"}
_DRAWING = {"do_sample", "temperature", "top_p", "top_k", *_FILTERS}
_BEAMS = {"num_beams", "length_penalty", "early_stopping", "num_beam_groups", "diversity_penalty"}
# `generate` needs the tokenizer for them, or refuses several answers; the official scorers give it
# none and take one answer.
_IMPOSSIBLE = ("stop_strings", "token_healing", "num_return_sequences")
_MOST_BEAMS = 100  # each is a row in memory
# Batched decoding applies these itself.
_BATCHED = {"repetition_penalty", "max_new_tokens"}


@dataclass(frozen=True)
class ModelSettings:
    """What is done with a model's generation_config.

    Attributes:
        config: what the model is to generate with.
        followed: its settings that change answers and are in force, as in the official scorer.
        departures: what the official scorer would do and this one does not, one phrase each.
    """

    config: Any
    followed: dict[str, Any]
    departures: list[str]


def relevant(config: Any) -> dict[str, Any]:
    """The settings of a generation_config that can change an answer, where they do something."""
    neutral = config._get_default_generation_params()
    given = {
        name: value
        for name, value in config.to_diff_dict().items()
        if name not in _IRRELEVANT and value is not None and value != neutral.get(name, False)
    }
    unused = set() if given.get("do_sample") else _DRAWING - {"do_sample"}
    if "num_beams" not in given:
        unused = unused | _BEAMS
    return {name: value for name, value in given.items() if name not in unused}


def unbatchable(config: Any) -> list[str]:
    """Settings for which only one row at a time, by transformers itself, is known to be exact."""
    return sorted(set(relevant(config)) - _BATCHED - _DRAWING)


def plain(config: Any) -> Any:
    """A generation_config that keeps the special tokens and nothing else: greedy decoding."""
    return type(config)(**{name: getattr(config, name) for name in _TOKENS})


def decide(config: Any, way: Way) -> ModelSettings:
    """Say what a model's generation_config means for a score.

    Args:
        config: as the model brings it.
        way: how the official scorer of the challenge calls `generate`.

    Raises:
        UserError: it asks for a way to decode that transformers no longer has.
    """
    if way == "plain":
        return ModelSettings(plain(config), {}, [])
    given = relevant(config)
    ours = copy.deepcopy(config)
    departures = []

    def leave_out(names: set[str]) -> None:
        for name in names:
            setattr(ours, name, None)

    leave_out(_IRRELEVANT - {*_TOKENS, "transformers_version", "_from_model_config"})
    for name in _IMPOSSIBLE:
        # The official scorer takes the best of several beams; for code it says itself how many.
        harmless = name == "num_return_sequences" and way in ("greedy", "drawn")
        if name in given and not harmless:
            departures.append(_left_out(name, given[name], "stops with an error at it"))
    leave_out(set(_IMPOSSIBLE))
    if way == "greedy":
        leave_out({*_DRAWING, "max_new_tokens"})
    elif way == "drawn":
        for name in sorted(_FILTERS):
            value = getattr(config, name, None)
            if value is not None and value != config._get_default_generation_params().get(name):
                departures.append(_left_out(name, value, "applies it to what it draws"))
        if "num_beams" in given:
            departures.append(_left_out("num_beams", given["num_beams"], "draws along beams"))
        leave_out(_DRAWING | _BEAMS)
    elif way == "rows" and given.get("do_sample"):
        departures.append(
            "answers are greedy, although the model's generation_config says do_sample (the "
            "official scorer draws them; --official-batching does, too)"
        )
        leave_out(_DRAWING | _BEAMS)
    _check_mode(ours)
    return ModelSettings(ours, relevant(ours), departures)


def check(settings: ModelSettings, vocabulary: int) -> None:
    """Refuse settings at which transformers' `generate` would stop, before the model is loaded.

    They are tried on a model with one tiny layer, one by one so that the sentence names the right
    one, then together.

    Args:
        settings: as decided.
        vocabulary: number of tokens of the model.

    Raises:
        UserError: names the setting and its value.
    """
    if not settings.followed:
        return
    drawing = {
        name: settings.followed[name] for name in ("do_sample",) if name in settings.followed
    }
    tries = [{name: value, **drawing} for name, value in settings.followed.items()]
    model = _tiny_model(vocabulary)
    for tried in [*tries, settings.followed]:
        reason = _stops(model, settings.config, tried)
        if reason is not None:
            names = [name for name in tried if name not in drawing] or list(drawing)
            shown = tried if tried is settings.followed else {n: tried[n] for n in names}
            listed = ", ".join(f"{name} {value!r}" for name, value in shown.items())
            raise UserError(
                f"the model's generation_config has {one_line(listed, 200)}, with which nothing "
                f"can be generated ({one_line(reason, 120)}): change that in its "
                "generation_config.json, or score with --suite standard, which is greedy"
            )


def _tiny_model(vocabulary: int) -> Any:
    # Late, as in `_check_mode`.
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    with torch.random.fork_rng(devices=[]):
        sizes: Any = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1}
        heads: Any = {"num_attention_heads": 1, "num_key_value_heads": 1}
        tiny = LlamaConfig(vocab_size=vocabulary, **sizes, **heads)
        return LlamaForCausalLM(tiny).eval()


def _stops(model: Any, config: Any, tried: dict[str, Any]) -> str | None:
    """Return the error at which `generate` stops with these settings alone; None if it does not."""
    # Late, as in `_check_mode`.
    import torch

    limit = tried.get("max_new_tokens", 2)
    if type(limit) is not int or limit < 1:
        return "it has to be a whole number of at least 1"
    beams = tried.get("num_beams", 1)
    if type(beams) is not int or not 1 <= beams <= _MOST_BEAMS:
        return f"it has to be a whole number from 1 to {_MOST_BEAMS}"
    with torch.random.fork_rng(devices=[]):
        ids = torch.zeros((1, 2), dtype=torch.long)
        try:
            model.generation_config = plain(config)
            model.generation_config.update(**tried)
            pad = model.generation_config.pad_token_id or 0
            model.generate(
                ids, attention_mask=torch.ones_like(ids), max_new_tokens=2, pad_token_id=pad
            )
        # Whatever a value of any type makes it raise.
        except Exception as error:
            return f"{type(error).__name__}: {error}"
    return None


def record(settings: ModelSettings, way: Way, official_batch: int | None) -> dict[str, Any]:
    """How answers came about, for results.json.

    `official_batch` is the official scorer's batch size where its answers depend on it.
    """
    batching = {"rows": "rows", "batches": "official"}.get(way)
    return {
        "batching": batching,
        "official-batch-size": official_batch if batching else None,
        "generation-config": settings.followed,
    }


def sentences(settings: ModelSettings) -> list[str]:
    """What to say before the model is loaded."""
    said = [f"Not as the official scorer: {phrase}." for phrase in settings.departures]
    if settings.followed:
        listed = ", ".join(f"{name} {value}" for name, value in sorted(settings.followed.items()))
        said.insert(0, f"In force from the model's generation_config, as officially: {listed}.")
    return said


def _left_out(name: str, value: Any, official: str) -> str:
    return (
        f"{name} {value} of the model's generation_config is left out (the official scorer "
        f"{official})"
    )


def _check_mode(config: Any) -> None:
    # Late: transformers' generation takes seconds to import.
    from transformers.generation.utils import GENERATION_MODES_MAPPING

    whole = copy.deepcopy(config)
    whole.update(**whole._get_default_generation_params(), defaults_only=True)
    try:
        mode = whole.get_generation_mode()
    except TypeError:  # a value of another type, which `check` names
        return
    if "/" in GENERATION_MODES_MAPPING[mode]:
        raise UserError(
            f"the model's generation_config asks for {mode.value.replace('_', ' ')} "
            f"({', '.join(f'{name} {value}' for name, value in relevant(config).items())}), which "
            "transformers can no longer do by itself: remove that from its generation_config.json, "
            "or score with --suite standard, which is greedy"
        )
