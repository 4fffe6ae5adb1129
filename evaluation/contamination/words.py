"""What two texts are compared by: their words, whatever stands around them."""

import re
import unicodedata

_WORD = re.compile(r"[^\W_]+")


def words(text: str) -> list[str]:
    """Return the words of a text: runs of letters and digits, in one case and one Unicode form."""
    # Folding can leave a form that NFKC would not.
    return _WORD.findall(unicodedata.normalize("NFKC", text.casefold()))


def normal(text: str) -> str:
    """Return what exact copies of a text share: its words, or all its signs where it has none."""
    return " ".join(words(text)) or "".join(unicodedata.normalize("NFKC", text).split())
