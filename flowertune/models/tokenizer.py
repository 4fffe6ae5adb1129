"""The one loader of tokenizers: training, chat and scoring load through it."""

from typing import Any

from flowertune.models.source import Source

_MISTRALS_OWN = "MistralCommonBackend"


def read_tokenizer(source: Source, config: Any) -> Any:
    """Return a model's tokenizer, with a padding token: its own, else its EOS, else token 0.

    It is the same whether or not the package mistral-common is installed, as long as the model
    has a tokenizer.json.

    Parameters
    ----------
    config : PretrainedConfig
        The model's configuration.

    Raises
    ------
    UserError
        If it is missing or damaged, needs a package that is not installed, or has tokens that the
        model does not have.
    """
    # Late: transformers takes seconds to import.
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(source.path, **source.arguments)
        if type(tokenizer).__name__ == _MISTRALS_OWN and _has_tokenizer_json(source):
            tokenizer = AutoTokenizer.from_pretrained(
                source.path, mistral_format=False, **source.arguments
            )
        tokenizer("Is it whole?")
    except Exception as error:  # transformers and what it reads with raise many kinds
        raise source.unusable("its tokenizer", error) from error
    _check_vocabulary(source, tokenizer, config)
    return tokenizer


def _check_vocabulary(source: Source, tokenizer: Any, config: Any) -> None:
    rows = getattr(config.get_text_config(), "vocab_size", None)
    if not isinstance(rows, int):
        return
    size, eos = tokenizer.vocab_size, tokenizer.eos_token_id
    if max(size, (eos or 0) + 1) > rows:
        what = f"has {size:,} tokens" if size > rows else f"ends texts with token {eos:,}"
        raise source.refusal(
            f"its tokenizer {what}, while its config.json says vocab_size is {rows:,}: the two do "
            "not belong together"
        )
    pad = tokenizer.pad_token_id
    if pad is None or pad >= rows:
        # Padding is masked wherever it is used, so any token will do.
        tokenizer.pad_token = tokenizer.convert_ids_to_tokens(0 if eos is None else eos)


def _has_tokenizer_json(source: Source) -> bool:
    from transformers.utils.hub import cached_file  # late, as above

    options = {k: v for k, v in source.arguments.items() if k != "trust_remote_code"}
    found = cached_file(
        source.path, "tokenizer.json", _raise_exceptions_for_missing_entries=False, **options
    )
    return found is not None
