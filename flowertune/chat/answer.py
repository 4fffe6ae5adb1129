"""Have a model continue a prompt, and show the answer while it is generated."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen: temperature 0 always takes the most likely token."""

    max_new_tokens: int
    temperature: float = 0.7
    seed: int = 0


@dataclass(frozen=True)
class Answer:
    """What a model said, and whether it would have gone on but for ``max_new_tokens``."""

    text: str
    cut: bool = False


def visible(text: str, stops: Sequence[str], final: bool = False) -> str:
    """Return the part of an answer that may be shown.

    A stop text ends the answer and is not shown, nor is the white space before it. Until the answer
    is ``final``, an end that may become a stop text is held back.
    """
    ends = [at for at in (text.find(stop) for stop in stops) if at >= 0]
    if ends:
        return text[: min(ends)].rstrip()
    if final or not stops:
        return text
    for length in range(max(map(len, stops)) - 1, 0, -1):
        if any(len(stop) > length and text.endswith(stop[:length]) for stop in stops):
            text = text[:-length]
            break
    return text.rstrip()


def answer_streamer(tokenizer: Any, stops: Sequence[str], say: Callable[[str], None]) -> Any:
    """Return a ``TextStreamer`` that hands an answer without its stop text to ``say``.

    Its attribute ``answer`` is what it has handed over so far.
    """
    # Late: transformers takes seconds to import, and wrong arguments are reported without it.
    from transformers import TextStreamer

    class AnswerStreamer(TextStreamer):
        def __init__(self) -> None:
            super().__init__(
                tokenizer,
                skip_prompt=True,
                skip_special_tokens=True,
                clean_up_tokenization_spaces=False,
            )
            self.generated, self.answer = "", ""

        def put(self, value: Any) -> None:
            prompt = self.next_tokens_are_prompt
            super().put(value)
            if not prompt and not self.token_cache:
                # TextStreamer starts anew after a line break, and SentencePiece drops the space
                # before the first token that it decodes: indented code would lose a column.
                self.token_cache = value.flatten().tolist()
                self.print_len = len(tokenizer.decode(self.token_cache, **self.decode_kwargs))

        def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
            self.generated += text
            shown = visible(self.generated.lstrip(), stops, stream_end)
            if len(shown) > len(self.answer):
                say(shown[len(self.answer) :])
                self.answer = shown

    return AnswerStreamer()


def room(model: Any) -> int | None:
    """Return how many tokens the model can take in, None where its configuration does not say."""
    return getattr(model.config, "max_position_embeddings", None)


def answer(
    tokenizer: Any,
    model: Any,
    prompt: str,
    stops: Sequence[str],
    sampling: Sampling,
    say: Callable[[str], None],
) -> Answer:
    """Return the model's answer to ``prompt``; ``say`` gets it piece by piece.

    An interrupt (Ctrl-C) ends the answer where it is.
    """
    # Late: both take seconds to import, and wrong arguments are reported without them.
    import torch
    from transformers import GenerationConfig

    tokens = tokenizer(prompt, return_tensors="pt").to(model.device)
    drawn: dict[str, Any] = {"do_sample": False}
    if sampling.temperature:
        drawn = {"do_sample": True, "temperature": sampling.temperature, "top_k": 0, "top_p": 1.0}
    own = model.generation_config
    ends = tokenizer.eos_token_id if own.eos_token_id is None else own.eos_token_id
    # Of the model's own settings its end tokens only: beams, penalties and the like would make
    # answers that are neither the most likely ones nor drawn as asked for.
    config = GenerationConfig(
        bos_token_id=own.bos_token_id,
        eos_token_id=ends,
        pad_token_id=tokenizer.pad_token_id,
        max_new_tokens=sampling.max_new_tokens,
        stop_strings=list(stops) or None,
        **drawn,
    )
    # `generate` takes from here whatever it is not told.
    model.generation_config = config
    streamer = answer_streamer(tokenizer, stops, say)
    torch.manual_seed(sampling.seed)
    cut = False
    try:
        with torch.inference_mode():
            generated = model.generate(
                input_ids=tokens["input_ids"],
                attention_mask=tokens["attention_mask"],
                generation_config=config,
                tokenizer=tokenizer,
                streamer=streamer,
            )
        new = generated[0, tokens["input_ids"].shape[1] :].tolist()
        ended = bool(new) and new[-1] in ([ends] if isinstance(ends, int) else ends or [])
        stopped = any(stop in streamer.generated for stop in stops)
        cut = len(new) >= sampling.max_new_tokens and not ended and not stopped
    except KeyboardInterrupt:
        streamer.end()
    return Answer(streamer.answer, cut)
