"""Charts as numbers that the templates draw as SVG; nothing here is text of a user."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from clipzoo.report.site.measured import SetPlots, thinned

WIDTH, HEIGHT = 560, 220
"""Of a curve, in px."""
LEFT, RIGHT, TOP, BOTTOM = 62, 12, 10, 34
"""Margins for the labels of the axes."""
MAX_POINTS = 240
MAX_CLASSES = 60
"""Classes of a confusion matrix, the least accurate ones."""
CELL = 11
"""Side of a cell of a confusion matrix, in px; style.css has it too, so that cells are short."""


@dataclass(frozen=True, kw_only=True)
class Tick:
    """A label of an axis and its place along it."""

    place: float
    label: str


@dataclass(frozen=True, kw_only=True)
class Curve:
    """A line over training steps."""

    points: str
    """The attribute `points` of an SVG polyline."""
    dots: list[tuple[float, float]]
    """Places of single values, where there are few."""
    x_ticks: list[Tick]
    y_ticks: list[Tick]
    last: str
    """The last value, in words."""


@dataclass(frozen=True, kw_only=True)
class Cell:
    """A cell of a confusion matrix that is not empty."""

    row: int
    column: int
    share: float
    """The share of the videos of the true class, 0 to 1."""
    count: int


@dataclass(frozen=True, kw_only=True)
class Confusion:
    """A confusion matrix: true classes down, predicted ones across."""

    rows: list[str]
    columns: list[str]
    cells: list[Cell]
    num_classes: int


def curve(points: Sequence[tuple[int, float]]) -> Curve | None:
    """A line through (step, value); None without a finite point."""
    finite = [(x, y) for x, y in points if math.isfinite(y)]
    if not finite:
        return None
    shown = thinned(finite, MAX_POINTS)
    x_ticks, y_ticks = ticks([x for x, _ in shown]), ticks([y for _, y in shown])
    x_range, y_range = (
        (min(low, values[0]), max(high, values[-1]))
        for low, high, values in (
            (min(x for x, _ in shown), max(x for x, _ in shown), x_ticks),
            (min(y for _, y in shown), max(y for _, y in shown), y_ticks),
        )
    )

    def place_x(x: float) -> float:
        return round(LEFT + (WIDTH - LEFT - RIGHT) * _share(x, x_range), 1)

    def place_y(y: float) -> float:
        return round(HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * _share(y, y_range), 1)

    places = [(place_x(x), place_y(y)) for x, y in shown]
    return Curve(
        points=" ".join(f"{x},{y}" for x, y in places),
        dots=places if len(places) <= 30 else [],
        x_ticks=[Tick(place=place_x(x), label=_short(x)) for x in x_ticks],
        y_ticks=[Tick(place=place_y(y), label=_short(y)) for y in y_ticks],
        last=_short(finite[-1][1]),
    )


def _share(value: float, ends: tuple[float, float]) -> float:
    low, high = ends
    return (value - low) / (high - low) if high > low else 0.5


def ticks(values: Sequence[float]) -> list[float]:
    """Three to six round numbers over the range of some values.

    Example: values from 0 to 359 give 0, 100, 200, 300.
    """
    low, high = min(values), max(values)
    if high <= low:
        return [low]
    rough = (high - low) / 4
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * m for m in (1, 2, 2.5, 5, 10) if power * m >= rough * (1 - 1e-9))
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [i * step for i in range(first, last + 1)]


def _short(value: float) -> str:
    return f"{value:.4g}"


def confusion(plots: SetPlots) -> Confusion | None:
    """The confusion matrix of a set, of its least accurate classes; None without videos."""
    counts = plots.counts()
    if not counts:
        return None
    chosen = sorted(count.class_id for count in counts[:MAX_CLASSES])
    place = {class_id: i for i, class_id in enumerate(chosen)}
    videos = {count.class_id: count.videos for count in counts}
    table: dict[tuple[int, int], int] = {}
    for video in plots.videos:
        if video.label in place:
            # The last column is of all other classes.
            key = (place[video.label], place.get(video.predicted, len(chosen)))
            table[key] = table.get(key, 0) + 1
    cells = [
        Cell(row=i, column=j, count=n, share=round(n / videos[chosen[i]], 3))
        for (i, j), n in sorted(table.items())
    ]
    names = [plots.name_of(class_id) for class_id in chosen]
    others = any(cell.column == len(chosen) for cell in cells)
    columns = [*names, "(other classes)"] if others else names
    return Confusion(rows=names, columns=columns, cells=cells, num_classes=len(counts))
