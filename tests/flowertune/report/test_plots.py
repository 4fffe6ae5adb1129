"""Figures of the page: their axes are easy to read, and they are the same each time."""

import re
from xml.etree import ElementTree

import pytest

from flowertune.profiler.units import seconds
from flowertune.profiling.phases import Span
from flowertune.report.plots import HOVERED, line_figure, line_plot
from flowertune.report.profile import BAR, MOST, bars, timeline


def ticks(axis) -> list[float]:
    """The ticks of an axis that are in view."""
    low, high = axis.get_view_interval()
    return [tick for tick in axis.get_ticklocs() if low <= tick <= high]


@pytest.mark.parametrize(
    ("low", "high"), [(0, 3), (0, 104_000), (1e-6, 5e-5), (0.4, 0.41), (7, 7), (0, 0), (-2, 5)]
)
def test_ticks_are_few_and_round_and_every_value_is_in_view(low: float, high: float):
    (axes,) = line_figure([(1, low), (2, high)]).axes
    bottom, top = axes.get_ylim()
    assert bottom == min(0, low) and top > high
    shown = ticks(axes.yaxis)
    assert 2 <= len(shown) <= 6 and 0 in shown
    texts = [axes.yaxis.get_major_formatter()(tick) for tick in shown]
    assert len(set(texts)) == len(texts) and all(len(text) <= 7 for text in texts)


@pytest.mark.parametrize(("first", "last"), [(1, 1), (1, 2), (1, 7), (1, 12), (1, 200), (3, 97)])
def test_rounds_on_an_axis_are_whole(first: int, last: int):
    (axes,) = line_figure([(number, 1.0) for number in range(first, last + 1)]).axes
    shown = ticks(axes.xaxis)
    assert 1 <= len(shown) <= 8 and all(tick == int(tick) for tick in shown)
    assert first <= min(shown) and max(shown) <= last


def test_points_stay_inside_their_plot_and_say_what_they_are():
    svg = line_plot("x", [(1, 0.0), (2, 5.0), (3, 2.5)], str, limit=8.0)
    root = ElementTree.fromstring(svg)
    points = [use for use in root.iter("use") if use.find("title") is not None]
    assert [use.findtext("title") for use in points] == [
        "round 1: 0.0",
        "round 2: 5.0",
        "round 3: 2.5",
    ]
    xs, ys = ([float(use.get(name, "")) for use in points] for name in ("x", "y"))
    assert min(xs) > 0 and max(xs) < 420 and min(ys) > 0 and max(ys) < 220
    assert ys[0] > ys[2] > ys[1] and "stroke-dasharray" in svg and "var(--bad)" in svg
    assert root.get("aria-label") == "x over rounds 1 to 3: from 0.0 to 2.5"


def test_a_long_run_has_a_line_and_no_tooltips():
    points = [(number, 1 / number) for number in range(1, HOVERED + 2)]
    assert "<title>" in line_plot("x", points[:-1], str)
    assert "<title>" not in line_plot("x", points, str)


def test_a_plot_is_the_same_each_time_and_shares_no_id_with_another():
    points = [(1, 0.0), (2, 5.0)]
    first, again, other = (line_plot(name, points, str) for name in ("x", "x", "y"))
    assert first == again
    ids = [set(re.findall(r' id="([^"]+)"', svg)) for svg in (first, other)]
    assert ids[0] and not ids[0] & ids[1]


def test_colors_are_the_style_sheets():
    svg = line_plot("x", [(1, 0.0), (2, 5.0)], str)
    assert "var(--series)" in svg and "var(--soft)" in svg and "var(--line)" in svg
    assert not re.findall(r": #[0-9a-f]{6}", svg)


def span(who="server", phase="wait", at=0.0, seconds=1.0, **more) -> Span:
    return Span(who, phase, 1, at, seconds, **more)


def test_the_timeline_has_a_bar_for_each_phase():
    spans = [span(), span("client $x$", "<own>", 0.2, 0.5, tokens=9), span(phase="save", at=1.0)]
    drawn = timeline(spans, [1.0], 2.0)
    root = ElementTree.fromstring(drawn.svg)
    described = [title.text for title in root.iter("title")]
    assert described == [
        "wait: 1.00 s, round 1",
        "save: 1.00 s, round 1",
        "<own>: 500 ms, round 1, 9 tokens",
    ]
    assert [text.text for text in root.iter("text")][-2:] == ["server", "client $x$"]
    assert list(drawn.legend) == ["wait", "save", "<own>"] and drawn.resumed
    assert drawn.left_out == 0 and f"over {seconds(2.0)}" in root.get("aria-label", "")


def test_bars_that_overlap_lie_below_each_other():
    drawn = timeline([span(seconds=2.0), span(phase="save", at=1.0, seconds=2.0)], [], 3.0)
    groups = ElementTree.fromstring(drawn.svg).iter("g")
    paths = [group.find("path") for group in groups if group.find("title") is not None]
    tops = [float(path.get("d", "").split()[2]) for path in paths if path is not None]
    assert abs(tops[0] - tops[1]) == pytest.approx(BAR + 1, abs=0.01)


def test_the_busiest_clients_are_shown():
    spans = [span(f"client {n}", "train", 0.0, n + 1.0) for n in range(MOST + 3)]
    drawn = timeline([*spans, span(seconds=0.1)], [], 30.0)
    texts = [text.text for text in ElementTree.fromstring(drawn.svg).iter("text")]
    assert drawn.left_out == 4
    assert "server" in texts and "client 3" not in texts and "client 4" in texts


def test_short_phases_that_touch_become_one_bar():
    spans = [span(at=at / 100, seconds=0.005) for at in range(5)]
    assert [bar.description for bar in bars(spans, close=0.01)] == ["5 times wait"]
    assert len(bars(spans, close=0.001)) == 5
