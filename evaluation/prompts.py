"""Prompt texts of the official scorers, as functions of plain values."""


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
