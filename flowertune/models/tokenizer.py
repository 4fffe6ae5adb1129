"""The one loader of tokenizers: training, chat and scoring load through it."""

from pathlib import Path
from typing import Any

from flowertune.base.errors import UserError
from flowertune.base.progress_bars import without_remarks
from flowertune.models.source import Source, missing_package

_MISTRALS_OWN = "MistralCommonBackend"
_FILES = ("*.json", "*.model", "*.tiktoken", "vocab.txt")  # that a tokenizer may be read from


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
        with without_remarks():
            tokenizer = AutoTokenizer.from_pretrained(source.path, **source.arguments)
            if type(tokenizer).__name__ == _MISTRALS_OWN and source.holds("tokenizer.json"):
                tokenizer = AutoTokenizer.from_pretrained(
                    source.path, mistral_format=False, **source.arguments
                )
        tokenizer("a")
    except Exception as error:  # transformers and what it reads with raise many kinds
        raise _refusal(source, error) from error
    _check_vocabulary(source, tokenizer, config)
    return tokenizer


def _refusal(source: Source, error: Exception) -> UserError:
    folder = source.folder or Path()
    if source.folder and not any(
        not file.name.startswith(("config", "generation_config", "model.safetensors"))
        for pattern in _FILES
        for file in folder.glob(pattern)
    ):
        return source.refusal(f"{folder} holds no tokenizer (tokenizer.json or the like)")
    if missing_package(error) == "tiktoken" and source.folder:
        # transformers takes a damaged SentencePiece file, which is binary, for one of tiktoken's.
        file = folder / "tokenizer.model"
        if file.is_file() and file.read_bytes()[:1] == b"\n":
            return source.refusal("its tokenizer.model is damaged")
    return source.unusable("its tokenizer", error)


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
