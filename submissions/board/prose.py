"""Text of participants in a page: Markdown as safe HTML, and differences line by line."""

import re
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any
from urllib.parse import quote

from markdown_it import MarkdownIt
from markdown_it.token import Token
from markupsafe import Markup, escape

_ADDRESS = re.compile(r"https?://[^\s]", re.IGNORECASE)
# They change the order in which text is read, or cannot be seen at all.
_UNSEEN = re.compile(
    "[\u200b\u200e\u200f\u061c\u202a-\u202e\u2060\u2066-\u2069\ufeff\x00-\x08\x0b-\x1f\x7f-\x9f]"
)
_PERCENT = re.compile("%(?![0-9A-Fa-f]{2})")
_REL = "nofollow noopener noreferrer"
_BELOW = 2  # a heading of the text is below those of the page


def markdown(text: str) -> Markup:
    """Return Markdown as HTML without any tag, image or script of its own; links lead to the web.

    HTML in it is shown as text, and so is a link to anything but an http address. A picture becomes
    a link to it: the page loads nothing from elsewhere.
    """
    return Markup(_parser().render(visible(text)))


@cache
def _parser() -> MarkdownIt:
    parser = MarkdownIt("js-default", {"html": False, "linkify": False, "maxNesting": 20})
    parser.validateLink = lambda url: _ADDRESS.match(url) is not None  # type: ignore[method-assign]
    parser.core.ruler.push("below", _lower)
    return parser


def _lower(state: Any) -> None:
    for token in state.tokens:
        if token.type in ("heading_open", "heading_close"):
            token.tag = f"h{min(6, int(token.tag[1]) + _BELOW)}"
        if style := str(token.attrs.pop("style", "")):  # of a cell, which the page's policy refuses
            token.attrSet("class", "number" if "right" in style else "text")
        if token.children:
            token.children = list(_inline(token.children))


def _inline(tokens: Sequence[Token]) -> Iterator[Token]:
    """Yield the tokens of a line; pictures as links, or as text where they are within one."""
    within = 0
    for token in tokens:
        within += {"link_open": 1, "link_close": -1}.get(token.type, 0)
        if token.type == "link_open":
            token.attrSet("rel", _REL)
        if token.type != "image":
            yield token
            continue
        text = Token("text", "", 0, content=f"picture: {token.content}".rstrip(": "))
        if within:
            yield text
            continue
        yield Token("link_open", "a", 1, attrs={"href": token.attrs["src"], "rel": _REL})
        yield text
        yield Token("link_close", "a", -1)


def sentence(text: str) -> Markup:
    """Return a sentence of a check as HTML: what stands between backticks is code."""
    parts = visible(text).split("`")
    if len(parts) % 2 == 0:  # one has no partner
        return escape(visible(text))
    shown = [
        escape(p) if n % 2 == 0 else Markup("<code>{}</code>").format(p)
        for n, p in enumerate(parts)
    ]
    return Markup("").join(shown)


def href(address: str) -> str:
    """Return an address without the characters that an address must not have."""
    return _PERCENT.sub("%25", quote(address, safe="%/:?#@!$&'()*+,;=-._~"))


def visible(text: str) -> str:
    """Return a text whose unseen characters are written out, so that it reads as it is stored."""
    return _UNSEEN.sub(lambda match: f"\\u{ord(match[0]):04x}", text.replace("\r\n", "\n"))


def difference(text: str) -> Sequence[tuple[str, str]]:
    """Return the lines of a unified difference with what each is: file, place, new, old or same."""
    return [(_kind(line), visible(line)) for line in text.split("\n")] if text else []


def _kind(line: str) -> str:
    if line.startswith(("--- ", "+++ ")):
        return "file"
    if line.startswith("@@"):
        return "place"
    return {"+": "new", "-": "old"}.get(line[:1], "same")
