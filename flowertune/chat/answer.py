"""Have a model go on from a prompt, and show the answer while it is written."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

# A byte-level tokenizer decodes the first bytes of a longer character to this.
_UNFINISHED = "\ufffd"


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen: temperature 0 takes the likeliest, always."""

    max_new_tokens: int = 512
    temperature: float = 0.7
    seed: int = 0


def shown(text: str, stops: Sequence[str], final: bool = False) -> tuple[str, bool]:
    """Return how much of an answer may be shown, and whether it has ended.

    A stop text ends the answer and is not shown. Until the answer is ``final``, what may become
    a stop text, or a character of more bytes than are there, is held back.
    """
    ends = [at for at in (text.find(stop) for stop in stops) if at >= 0]
    if ends:
        return text[: min(ends)].rstrip(), True
    if final:
        return text, True
    text = text.rstrip(_UNFINISHED)
    for length in range(max(map(len, stops), default=1) - 1, 0, -1):
        if any(len(stop) > length and text.endswith(stop[:length]) for stop in stops):
            text = text[:-length]
            break
    # the white space before a stop text is no part of the answer either
    return (text.rstrip() if stops else text), False


class Listener:
    """Takes tokens as ``generate`` makes them, and passes on new text."""

    def __init__(self, tokenizer: Any, stops: Sequence[str], say: Callable[[str], None]) -> None:
        self.tokenizer, self.stops, self.say = tokenizer, stops, say
        self.ids: list[int] = []
        self.text, self.done, self.prompt_seen = "", False, False

    def put(self, value: Any) -> None:
        """Take the prompt's tokens (the first call), or new ones."""
        if not self.prompt_seen:
            self.prompt_seen = True
            return
        self.ids += value.flatten().tolist()
        self._show(final=False)

    def end(self) -> None:
        """Show what was held back."""
        if not self.done:
            self._show(final=True)

    def __call__(self, input_ids: Any, scores: Any, **_: Any) -> Any:
        """Tell ``generate`` to stop once the answer has ended (a stopping criterion)."""
        import torch

        return torch.full((input_ids.shape[0],), self.done, device=input_ids.device)

    def _show(self, final: bool) -> None:
        decoded = self.tokenizer.decode(
            self.ids, skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        text, self.done = shown(decoded.lstrip(), self.stops, final)
        if len(text) > len(self.text):
            self.say(text[len(self.text) :])
            self.text = text


def room(model: Any) -> int | None:
    """Return how many tokens the model can look at, None where it does not say."""
    return getattr(model.config, "max_position_embeddings", None)


def answer(
    tokenizer: Any,
    model: Any,
    prompt: str,
    stops: Sequence[str],
    sampling: Sampling,
    say: Callable[[str], None],
) -> str:
    """Return the model's answer to ``prompt``; ``say`` gets it piece by piece.

    An interrupt (Ctrl-C) ends the answer where it is.
    """
    import torch
    from transformers import GenerationConfig, StoppingCriteriaList

    tokens = tokenizer(prompt, return_tensors="pt").to(model.device)
    settings: dict[str, Any] = {"do_sample": False, "temperature": None, "top_p": None}
    if sampling.temperature:
        settings = {"do_sample": True, "temperature": sampling.temperature}
    else:
        settings["top_k"] = None
    found = GenerationConfig(**{**model.generation_config.to_diff_dict(), **settings})
    found.max_new_tokens, found.max_length = sampling.max_new_tokens, None
    if found.eos_token_id is None:
        found.eos_token_id = tokenizer.eos_token_id
    if found.pad_token_id is None:
        found.pad_token_id = tokenizer.eos_token_id
    listener = Listener(tokenizer, stops, say)
    torch.manual_seed(sampling.seed)
    try:
        with torch.inference_mode():
            model.generate(
                input_ids=tokens["input_ids"],
                attention_mask=tokens["attention_mask"],
                generation_config=found,
                streamer=listener,
                stopping_criteria=StoppingCriteriaList([listener]),
            )
    except KeyboardInterrupt:
        listener.end()
    return listener.text
