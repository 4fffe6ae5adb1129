"""The participant's own words on the method, out of the model card."""

from submissions.formats.card import TO_FILL_IN

METHOD, SCORES = "## Method\n", "\n## Scores\n"
_DIFFERS = "\nDiffers from the template in: "
CHARACTERS = 20_000


def method(card: str) -> str:
    """Return the Markdown of a card's section on the method; empty where nobody filled it in.

    It is cut at ``CHARACTERS``.
    """
    _, found, rest = card.replace("\r\n", "\n").partition(METHOD)
    if not found:
        return ""
    text = rest.rpartition(SCORES)[0] or rest
    text = (text.rpartition(_DIFFERS)[0] or text).strip()
    if text == TO_FILL_IN:
        return ""
    return text if len(text) <= CHARACTERS else f"{text[:CHARACTERS]} …"
