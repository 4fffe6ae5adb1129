"""From a row of the dataset to what the model is shown, and what it is to answer."""

from collections.abc import Mapping
from typing import Any

import flowertune


def prompt_and_answer(
    row: Mapping[str, Any], cfg: flowertune.Settings, tokenizer: Any
) -> tuple[str, str]:
    """Return the prompt and the answer of one row; only the answer is trained on.

    ``prompt.template`` may use {question}, which the challenge defines, and any column. With
    ``model.chat-template`` the question goes into the tokenizer's own template instead.
    """
    question = cfg.static.dataset.question.format_map(row).strip()
    if cfg.model.chat_template:
        prompt = flowertune.chat_prompt(tokenizer, question)
    else:
        prompt = cfg.prompt.template.format_map({**row, "question": question})
    return prompt, cfg.static.dataset.answer.format_map(row)
