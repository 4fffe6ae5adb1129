"""Prompt texts of the official scorers, as functions of plain values."""

from collections.abc import Sequence


def sentiment(instruction: str, text: str) -> str:
    """Finance prompt; ends in "Answer: " with the blank and without a newline."""
    lines = [f"Instruction: {instruction}"]
    if text:
        lines.append(f"Input: {text}")
    return "\n".join([*lines, "Answer: "])


def sentiment_instruction(kind: str) -> str:
    """The finance question about a `kind` of text: "news" or "tweet"."""
    return (
        f"What is the sentiment of this {kind}? "
        "Please choose an answer from {negative/neutral/positive}."
    )


def question_block(question: str, options: Sequence[str]) -> str:
    """Question and lettered options; a question without a final "?" or "." gets a "?"."""
    mark = "" if question.endswith(("?", ".")) else "?"
    lettered = [f"{letter}. {option}" for letter, option in zip("ABCDE", options, strict=False)]
    return "\n".join([f"Question: {question}{mark}", "", "Options:", *lettered])


def exam(instruction: str, body: str) -> str:
    """The shell around every MMLU and medical prompt; ends with a newline."""
    return (
        f"<|im_start|>question\n{instruction}\n{body}\nThe answer is:\n"
        "<|im_end|>\n<|im_start|>answer\n"
    )
