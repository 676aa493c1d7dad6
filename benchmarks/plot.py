"""A log-log plot as SVG."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

WIDTH, HEIGHT = 720, 420
LEFT, RIGHT, TOP, BOTTOM = 70, 190, 40, 50
COLOURS = ("#1f77b4", "#d62728", "#2ca02c", "#9467bd", "#ff7f0e", "#17becf")


def svg(plot: Mapping[str, Any]) -> str:
    """The plot `{title, x, y, lines: [{name, points}]}`; all values must be above 0."""
    points = [point for line in plot["lines"] for point in line["points"]]
    x_axis = _decades([x for x, _ in points])
    y_axis = _decades([y for _, y in points])
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
        'font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        _text(LEFT, 22, plot["title"], size=15),
        _text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 10, plot["x"], anchor="middle"),
        f'<g transform="rotate(-90 16 {HEIGHT / 2})">'
        + _text(16, HEIGHT / 2, plot["y"], anchor="middle")
        + "</g>",
    ]
    for decade in x_axis:
        x = _across(10.0**decade, x_axis)
        parts += [
            _rule(x, TOP, x, HEIGHT - BOTTOM),
            _text(x, HEIGHT - 32, _power(decade), "middle"),
        ]
    for decade in y_axis:
        y = _up(10.0**decade, y_axis)
        parts += [_rule(LEFT, y, WIDTH - RIGHT, y), _text(LEFT - 8, y + 4, _power(decade), "end")]
    for number, line in enumerate(plot["lines"]):
        parts += _line(line, COLOURS[number % len(COLOURS)], number, x_axis, y_axis)
    return "\n".join([*parts, "</svg>"]) + "\n"


def _line(
    line: Mapping[str, Any], colour: str, number: int, x_axis: Sequence[int], y_axis: Sequence[int]
) -> list[str]:
    places = [(_across(x, x_axis), _up(y, y_axis)) for x, y in line["points"]]
    joined = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    legend = TOP + 14 + 20 * number
    return [
        f'<polyline points="{joined}" fill="none" stroke="{colour}" stroke-width="2"/>',
        *(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="{colour}"/>' for x, y in places),
        f'<rect x="{WIDTH - RIGHT + 12}" y="{legend - 9}" width="12" height="12" fill="{colour}"/>',
        _text(WIDTH - RIGHT + 30, legend + 2, line["name"]),
    ]


def _decades(values: Sequence[float]) -> range:
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    return range(low, max(high, low + 1) + 1)


def _across(x: float, axis: Sequence[int]) -> float:
    return LEFT + (math.log10(x) - axis[0]) / (axis[-1] - axis[0]) * (WIDTH - LEFT - RIGHT)


def _up(y: float, axis: Sequence[int]) -> float:
    share = (math.log10(y) - axis[0]) / (axis[-1] - axis[0])
    return HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM)


def _power(decade: int) -> str:
    return f"{10**decade:,}" if decade >= 0 else f"{10.0**decade:g}"


def _rule(x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="#ddd"/>'


def _text(x: float, y: float, text: str, anchor: str = "start", size: int = 12) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}">'
        f"{escape(text)}</text>"
    )
