"""Figures of matplotlib as SVG within a page: its fonts and colors, and reproducible."""

import io
import re
from collections.abc import Mapping, Sequence
from typing import Any
from xml.etree import ElementTree

import matplotlib
from markupsafe import Markup
from matplotlib.figure import Figure

PIXEL = 1 / 72  # inches: an SVG of matplotlib has 72 units an inch
# Colors that the page's style sheet has for light and for dark, by their light value.
INK, SOFT, LINE, SERIES, BAD = "#1c2128", "#5a6472", "#dfe3e8", "#1f63b8", "#a8201a"
VARIABLES = {INK: "--ink", SOFT: "--soft", LINE: "--line", SERIES: "--series", BAD: "--bad"}
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",  # text stays text
    "font.family": "DejaVu Sans",  # comes with matplotlib, which must know how wide texts are
    "font.size": 12,
    "text.color": SOFT,
    "axes.labelcolor": SOFT,
    "xtick.labelcolor": SOFT,
    "ytick.labelcolor": SOFT,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "grid.color": LINE,
    "grid.linewidth": 1,
    "axes.axisbelow": True,
    "axes.facecolor": "none",
    "figure.facecolor": "none",
    **{f"axes.spines.{side}": False for side in ("left", "right", "top", "bottom")},
}


def inline_svg(figure: Figure, label: str, tooltips: Mapping[str, Sequence[str]]) -> Markup:
    """Return a figure as an ``<svg>`` element to put into a page.

    Parameters
    ----------
    figure : Figure
        Made within ``matplotlib.rc_context(STYLE)``.
    label : str
        A description for those who cannot see it; another one for each figure of a page.
    tooltips : Mapping[str, Sequence[str]]
        Texts that appear under the mouse, by the gid of an artist: one for each of its markers,
        or one for the whole artist.
    """
    text = io.StringIO()
    # The salt makes ids that are the same each time, and that no other figure of the page has.
    with matplotlib.rc_context({"svg.hashsalt": label, "svg.fonttype": "none"}):
        figure.savefig(
            text, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type"))
        )
    root = ElementTree.fromstring(text.getvalue())
    for element in root.iter():
        _strip_namespaces(element)
    for group in root.iter("g"):
        if tooltip := tooltips.get(group.get("id", "")):
            marked = list(group.iter("use")) or [group]
            for element, content in zip(marked, tooltip, strict=True):
                ElementTree.SubElement(element, "title").text = content
    for style in root.findall("defs"):  # a style sheet, which would apply to the whole page
        if style.find("style") is not None:
            root.remove(style)
    referenced = set(re.findall(r"#([\w-]+)", " ".join(_references(root))))
    for element in root.iter():
        if element.get("id") not in referenced:
            element.attrib.pop("id", None)
    for name in ("width", "height", "version"):
        root.attrib.pop(name, None)
    root.attrib |= {"role": "img", "aria-label": label}
    svg = ElementTree.tostring(root, encoding="unicode")
    return Markup(re.sub("#[0-9a-f]{6}", _color, svg))


def _strip_namespaces(element: ElementTree.Element) -> None:
    # An SVG within HTML needs none.
    element.tag = element.tag.rpartition("}")[2]
    for name in list(element.attrib):
        if "}" in name:
            element.set(name.rpartition("}")[2], element.attrib.pop(name))


def _references(root: ElementTree.Element) -> list[str]:
    names = ("href", "clip-path", "style")
    return [value for element in root.iter() for name in names if (value := element.get(name))]


def _color(match: re.Match[str]) -> str:
    return f"var({VARIABLES[match[0]]})" if match[0] in VARIABLES else match[0]
