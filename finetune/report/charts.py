"""Pictures as plain geometry: the templates draw them, so that nothing here writes markup."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

WIDTH, HEIGHT = 720, 260  # pixels at full size; the page scales them
LEFT, RIGHT, TOP, BOTTOM = 64, 12, 12, 36
MAX_POINTS = 400  # buckets a line; each keeps its lowest and highest point

Point = tuple[float, float]


class Tick(NamedTuple):
    """A mark on an axis: where, and what stands there."""

    at: float
    label: str


class Line(NamedTuple):
    """A line of a chart: its name, its style, and the `d` of its SVG path."""

    name: str
    style: str
    path: str


class Bar(NamedTuple):
    """A bar of a histogram, with what it says on hovering."""

    x: float
    y: float
    width: float
    height: float
    label: str


class Chart(NamedTuple):
    """All that a template needs to draw; places are in pixels."""

    title: str
    x_label: str
    lines: list[Line]
    bars: list[Bar]
    x_ticks: list[Tick]
    y_ticks: list[Tick]
    marks: list[Tick]
    mark_name: str


class Series(NamedTuple):
    """What one line shows: points in order of x, in the data's units."""

    name: str
    style: str
    points: Sequence[Point]


class _Scale(NamedTuple):
    """Maps a range of values to a range of pixels."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low)
        return round(self.start + share * (self.end - self.start), 1)


def draw_lines(
    title: str,
    series: Iterable[Series],
    *,
    x_label: str = "step",
    marks: Iterable[float] = (),
    mark_name: str = "",
) -> Chart | None:
    """Return a line chart, None where there is nothing to draw.

    Args:
        title: What the picture shows.
        series: Its lines.
        x_label: Unit of the horizontal axis.
        marks: Places on the horizontal axis to mark.
        mark_name: What stands there, such as `checkpoint`.
    """
    series = [one for one in series if one.points]
    if not series:
        return None
    xs = [x for one in series for x in (one.points[0][0], one.points[-1][0])]
    ys = [y for one in series for _, y in one.points]
    across = _fit(min(xs), max(xs), LEFT, WIDTH - RIGHT)
    up = _fit(min(ys), max(ys), HEIGHT - BOTTOM, TOP, margin=0.05)
    return Chart(
        title=title,
        x_label=x_label,
        lines=[Line(one.name, one.style, _path(thin(one.points), across, up)) for one in series],
        bars=[],
        x_ticks=[Tick(across(value), f"{value:,.10g}") for value in _steps(across)],
        y_ticks=[Tick(up(value), f"{value:.6g}") for value in _steps(up)],
        marks=[Tick(across(x), f"{x:,.10g}") for x in marks if across.low <= x <= across.high],
        mark_name=mark_name,
    )


def draw_bars(
    title: str,
    bins: Sequence[tuple[str, float]],
    *,
    x_label: str,
    cut: int | None = None,
    cut_name: str = "",
) -> Chart | None:
    """Return a bar chart, None where there is nothing to draw.

    Args:
        title: What the picture shows.
        bins: Label and height of each bar.
        x_label: What the labels are.
        cut: Index of the bar before which a line is drawn.
        cut_name: What that line is.
    """
    if not any(count for _, count in bins):
        return None
    up = _Scale(0, max(count for _, count in bins) * 1.05, HEIGHT - BOTTOM, TOP)
    slot = (WIDTH - LEFT - RIGHT) / len(bins)
    every = math.ceil(len(bins) / 12)
    bars = [
        Bar(
            x=round(LEFT + slot * number + 1, 1),
            y=up(count),
            width=round(slot - 2, 1),
            height=round(up(0) - up(count), 1),
            label=f"{label}: {count:,}",
        )
        for number, (label, count) in enumerate(bins)
    ]
    ticks = [
        Tick(round(LEFT + slot * (number + 0.5), 1), label)
        for number, (label, _) in enumerate(bins)
        if number % every == 0
    ]
    marks = [Tick(round(LEFT + slot * cut, 1), "")] if cut is not None else []
    y_ticks = [Tick(up(value), f"{value:,.10g}") for value in _steps(up) if value == int(value)]
    return Chart(title, x_label, [], bars, ticks, y_ticks, marks, cut_name)


def thin(points: Sequence[Point], buckets: int = MAX_POINTS) -> list[Point]:
    """Return at most two points a bucket, the lowest and the highest, so that no spike is lost."""
    if len(points) <= 2 * buckets:
        return list(points)
    size = len(points) / buckets
    kept: list[Point] = []
    for number in range(buckets):
        bucket = points[int(number * size) : int((number + 1) * size)]
        low = min(bucket, key=lambda point: point[1])
        high = max(bucket, key=lambda point: point[1])
        kept.extend(sorted({low, high}))
    return kept


def smooth(points: Sequence[Point]) -> list[Point]:
    """Return the running mean of a noisy line; its memory is a fiftieth of the line."""
    if len(points) < 20:
        return []
    keep = 1 - 1 / max(5.0, len(points) / 50)
    mean, weight, out = 0.0, 0.0, []
    for x, y in points:
        mean, weight = keep * mean + (1 - keep) * y, keep * weight + (1 - keep)
        out.append((x, mean / weight))  # divided by the weight: no pull towards 0 at the start
    return out


def _fit(low: float, high: float, start: float, end: float, margin: float = 0.0) -> _Scale:
    space = (high - low) * margin or (0.0 if high > low else abs(high) * 0.5 or 0.5)
    return _Scale(low - space, high + space, start, end)


def _steps(scale: _Scale, wanted: int = 6) -> list[float]:
    """Return round values within a scale: 1, 2 or 5 times a power of ten apart."""
    rough = (scale.high - scale.low) / wanted
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough)
    first, last = math.ceil(scale.low / step), math.floor(scale.high / step)
    return [number * step for number in range(first, last + 1)]


def _path(points: Iterable[Point], across: _Scale, up: _Scale) -> str:
    return "M" + "L".join(f"{across(x)} {up(y)}" for x, y in points)
