"""The official scorers' loops, written down plainly and independently of `evaluation`.

One row at a time, transformers' `generate`, nothing clever: what `evaluation` has to agree with.
"""

import re
import string

import torch

FINANCE = {
    "fpb": lambda row: ("news", row["sentence"], ["negative", "neutral", "positive"][row["label"]]),
    "fiqa": lambda row: (
        "tweet" if row["format"] == "post" else "news",
        row["sentence"],
        "negative"
        if row["sentiment_score"] < -0.1
        else "neutral"
        if row["sentiment_score"] < 0.1
        else "positive",
    ),
    "tfns": lambda row: ("tweet", row["text"], ["negative", "positive", "neutral"][row["label"]]),
}


def finance_prompt(kind, text):
    """The prompt of one row."""
    question = f"What is the sentiment of this {kind}? Please choose an answer from "
    return f"Instruction: {question}{{negative/neutral/positive}}.\nInput: {text}\nAnswer: "


def change_target(text):
    """Text to label."""
    if "positive" in text or "Positive" in text:
        return "positive"
    if "negative" in text or "Negative" in text:
        return "negative"
    return "neutral"


def finance_answers(model, tokenizer, prompts, batch=1, greedy=True):
    """Decoded rows and labels of the official finance loop."""
    rows = []
    for start in range(0, len(prompts), batch):
        tokens = tokenizer(
            prompts[start : start + batch],
            return_tensors="pt",
            padding=True,
            return_token_type_ids=False,
        )
        options = {"do_sample": False} if greedy else {}
        with torch.no_grad():
            out = model.generate(
                **tokens, max_length=512, eos_token_id=tokenizer.eos_token_id, **options
            )
        rows += [tokenizer.decode(row, skip_special_tokens=True) for row in out]
    parts = [row.split("Answer: ") for row in rows]
    return rows, [change_target(part[1] if len(part) > 1 else "None") for part in parts]


def lettered(question, options):
    """Question and options of a multiple-choice prompt."""
    if not question.endswith("?") and not question.endswith("."):
        question += "?"
    lines = [f"{string.ascii_uppercase[i]}. {option}" for i, option in enumerate(options)]
    return "Question: " + question + "\n\nOptions:\n" + "\n".join(lines)


def exam_prompt(instruction, body):
    """The shell around every multiple-choice prompt."""
    inner = f"{instruction}\n{body}\nThe answer is:\n"
    return f"<|im_start|>question\n{inner}<|im_end|>\n<|im_start|>answer\n"


def exam_answers(model, tokenizer, prompts, golds, boolean, batch=16):
    """What is compared with the gold answers, row by row."""
    found = []
    for start in range(0, len(prompts), batch):
        longest = len(tokenizer(golds[start], add_special_tokens=False)["input_ids"])
        for prompt in prompts[start : start + batch]:
            ids = tokenizer.encode(prompt, return_tensors="pt")
            with torch.no_grad():
                out = model.generate(
                    inputs=ids,
                    max_new_tokens=longest,
                    do_sample=False,
                    pad_token_id=tokenizer.eos_token_id,
                )
            text = tokenizer.decode(out[0][len(ids[0]) :], skip_special_tokens=True)
            found.append(format_answer(text.lower(), boolean))
    return found


def format_answer(output, boolean):
    """The official clean-up of an answer in lower case."""
    text = output
    if "\n##" in text:
        text = text.split("\n##")[1].split("\n")[0].strip()
    text = re.sub(r"[^a-zA-Z0-9]", " ", text).strip()
    text = re.sub(" +", " ", text)
    if boolean:
        if "yesyes" in text:
            text = text.replace("yesyes", "yes")
        elif "nono" in text:
            text = text.replace("nono", "no")
        elif "yesno" in text:
            text = text.replace("yesno", "yes")
        elif "noyes" in text:
            text = text.replace("noyes", "no")
    elif text:
        text = text[0]
    return text if text in ["a", "b", "c", "d", "e", "yes", "no"] else output


def completions(model, tokenizer, prompts, stop_words, max_length):
    """Greedy code completions, cut at the first stop word."""
    found = []
    for prompt in prompts:
        ids = tokenizer(prompt, return_tensors="pt")["input_ids"]
        with torch.no_grad():
            out = model.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                do_sample=False,
                max_length=max_length,
            )[0]
        tokens = out.tolist()
        if tokens[0] == tokenizer.bos_token_id:
            tokens = tokens[1:]
        text = tokenizer.decode(
            tokens, skip_special_tokens=False, clean_up_tokenization_spaces=False
        )[len(prompt) :]
        ends = [text.find(word) for word in [*stop_words, tokenizer.eos_token]]
        ends = [end for end in ends if end >= 0]
        found.append(text[: min(ends)] if ends else text)
    return found
