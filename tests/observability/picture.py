"""docs/img/dashboard.svg: the dashboard, drawn with the data of a real Prometheus.

python -m tests.observability.picture     on the local cluster after `make deploy`; takes four minutes
"""

import json
import math
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final
from xml.sax.saxutils import escape

from charts.observability import DASHBOARD, ROOT
from tests.cluster.errors import ClusterError
from tests.observability.demonstration import demonstration
from tests.observability.prometheus import Prometheus, Series, start
from tests.target import live_target

PICTURE: Final = ROOT / "docs/img/dashboard.svg"
# Rows of the dashboard that are shown; the picture is to be read at the width of a page.
ROWS: Final = ("Sessions", "Pairing", "Operator")
CELL: Final = 50.0
UNIT: Final = 30.0
GAP: Final = 5.0
WIDTH: Final = 24 * CELL
PALETTE: Final = ("#3274D9", "#FF780A", "#56A64B", "#8F3BB8", "#E02F44", "#F2CC0C", "#33A2A2", "#8E8E8E")
HEAT: Final = ("#FFF3E6", "#FFD9B3", "#FFB366", "#FF8C1A", "#D96B00", "#8C4500")
INK, FAINT, LINE, PAPER, PANEL = "#24292E", "#6E7781", "#DFE3E8", "#F4F5F7", "#FFFFFF"
_STEPS: Final = 240


@dataclass
class Canvas:
    parts: list[str] = field(default_factory=list)

    def rect(self, x: float, y: float, w: float, h: float, fill: str, *, radius: float = 0, line: str = "") -> None:
        stroke = f' stroke="{line}"' if line else ""
        self.parts.append(
            f'<rect x="{x:.1f}" y="{y:.1f}" width="{max(w, 0):.1f}" height="{max(h, 0):.1f}" rx="{radius:g}"'
            f' fill="{fill}"{stroke}/>'
        )

    def text(
        self,
        x: float,
        y: float,
        text: str,
        *,
        size: float = 11,
        fill: str = INK,
        anchor: str = "start",
        bold: bool = False,
    ) -> None:
        weight = ' font-weight="600"' if bold else ""
        self.parts.append(
            f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size:g}" fill="{fill}" text-anchor="{anchor}"{weight}>'
            f"{escape(text)}</text>"
        )

    def path(self, points: Iterable[tuple[float, float]], color: str, *, filled: bool = False) -> None:
        data = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
        style = f'fill="{color}" fill-opacity="0.75"' if filled else f'fill="none" stroke="{color}" stroke-width="1.6"'
        self.parts.append(f'<path d="{data}{"Z" if filled else ""}" {style}/>')


@dataclass(frozen=True)
class Box:
    x: float
    y: float
    w: float
    h: float


class Drawing:
    """One picture of the time from `start` to `end`, in seconds since 1970."""

    def __init__(self, prometheus: Prometheus, start: float, end: float) -> None:
        self._prometheus = prometheus
        self._start, self._end = start, end
        self._step = max(2.0, (end - start) / _STEPS)
        self.canvas = Canvas()

    def panel(self, panel: dict[str, Any], y: float) -> None:
        """A panel in its place, `y` being that of the first row."""
        at = panel["gridPos"]
        box = Box(at["x"] * CELL + GAP, y + at["y"] * UNIT + GAP, at["w"] * CELL - 2 * GAP, at["h"] * UNIT - 2 * GAP)
        self.canvas.rect(box.x, box.y, box.w, box.h, PANEL, radius=4, line=LINE)
        self.canvas.text(box.x + 10, box.y + 18, panel["title"], bold=True, size=12)
        inside = Box(box.x + 10, box.y + 28, box.w - 20, box.h - 36)
        drawing = {
            "stat": self._stat,
            "bargauge": self._bars,
            "timeseries": self._lines,
            "heatmap": self._heatmap,
            "table": self._table,
        }[panel["type"]]
        drawing(panel, inside)

    def _query(self, target: dict[str, Any], *, at_end: bool = False) -> list[tuple[str, Series]]:
        """Each series with its legend; those of an instant query as they were at the end of the run."""
        expr = target["expr"].replace("$operator", ".*").replace("$namespace", ".*")
        expr = expr.replace("$__rate_interval", f"{max(10, round(self._step) * 4)}s")
        start = self._end if at_end else self._start
        found = self._prometheus.over(expr, start, self._end, self._step)
        legend = target.get("legendFormat", "__auto")
        named = []
        for series in found:
            name = legend
            for label, value in series.labels.items():
                name = name.replace("{{" + label + "}}", value)
            named.append(("" if name == "__auto" else name, series))
        return named

    def _stat(self, panel: dict[str, Any], box: Box) -> None:
        found = [
            (name, series.values[-1][1])
            for target in panel["targets"]
            for name, series in self._query(target, at_end=True)
            if math.isfinite(series.values[-1][1])
        ]
        defaults = panel["fieldConfig"]["defaults"]
        width = box.w / max(1, len(found))
        by_name = panel["options"]["textMode"] == "name"
        for number, (name, value) in enumerate(found):
            x = box.x + width * (number + 0.5)
            text = name if by_name else shown(value, defaults.get("unit", "short"), defaults.get("decimals"))
            size = min(34.0, 1.55 * width / max(len(text), 3))
            color = threshold(value, defaults["thresholds"]["steps"])
            middle = box.y + box.h / 2 + (4 if name and not by_name else 10)
            self.canvas.text(x, middle, text, size=size, fill=color, anchor="middle", bold=True)
            if name and not by_name:
                self.canvas.text(x, box.y + box.h - 2, name, fill=FAINT, anchor="middle")

    def _bars(self, panel: dict[str, Any], box: Box) -> None:
        found = [
            (name, series.values[-1][1])
            for target in panel["targets"]
            for name, series in self._query(target, at_end=True)
        ]
        if panel["title"] != "Funnel of a day":
            found.sort(key=lambda one: -one[1])
        height = min(44.0, box.h / max(1, len(found)))
        most = max((value for _, value in found), default=1.0) or 1.0
        names = min(box.w * 0.45, 12 + 6.9 * max((len(name) for name, _ in found), default=0))
        for number, (name, value) in enumerate(found):
            y = box.y + number * height
            self.canvas.text(box.x, y + height / 2 + 4, name)
            room = box.w - names - 46
            self.canvas.rect(box.x + names, y + 5, room, height - 10, PAPER, radius=2)
            self.canvas.rect(box.x + names, y + 5, room * value / most, height - 10, PALETTE[0], radius=2)
            self.canvas.text(box.x + box.w, y + height / 2 + 4, f"{value:.0f}", anchor="end", bold=True)

    def _colors(self, panel: dict[str, Any], names: Sequence[str]) -> dict[str, str]:
        fixed = {
            override["matcher"]["options"]: override["properties"][0]["value"]["fixedColor"]
            for override in panel["fieldConfig"]["overrides"]
            if override["properties"][0]["id"] == "color"
        }
        rest = iter(PALETTE * 4)
        return {name: fixed.get(name) or next(rest) for name in names}

    def _lines(self, panel: dict[str, Any], box: Box) -> None:
        found = [(name, series) for target in panel["targets"] for name, series in self._query(target)]
        custom = panel["fieldConfig"]["defaults"].get("custom", {})
        stacked = custom.get("stacking", {}).get("mode") == "normal"
        drawn_as_bars = custom.get("drawStyle") == "bars"
        found = [(name, one) for name, one in found if any(value > 0 for _, value in one.values)] or found
        if stacked and panel["title"] == "Sessions by phase":
            order = list(
                self._colors(panel, [override["matcher"]["options"] for override in panel["fieldConfig"]["overrides"]])
            )
            found.sort(key=lambda one: order.index(one[0]))
        names = list(dict.fromkeys(name for name, _ in found))
        colors = self._colors(panel, names)
        plot = Box(box.x + 46, box.y + 4, box.w - 52, box.h - 46)
        times = [self._start + step * self._step for step in range(int((self._end - self._start) / self._step) + 1)]
        values = {
            id(series): {round((at - self._start) / self._step): value for at, value in series.values}
            for _, series in found
        }
        base = [0.0] * len(times)
        tops = []
        for name, series in found:
            now = values[id(series)]
            one = [now.get(step, math.nan) for step in range(len(times))]
            one = [value if math.isfinite(value) else (0.0 if stacked else math.nan) for value in one]
            lower = list(base)
            if stacked:
                one = [below + value for below, value in zip(base, one, strict=True)]
                base = one
            tops.append((name, lower, one))
        highest = max((value for _, _, one in tops for value in one if math.isfinite(value)), default=1.0)
        ticks = nice(highest)
        top = ticks[-1] or 1.0
        unit = panel["fieldConfig"]["defaults"].get("unit", "short")

        def place(step: int, value: float) -> tuple[float, float]:
            return plot.x + plot.w * step / max(1, len(times) - 1), plot.y + plot.h * (1 - value / top)

        for tick in ticks:
            _, y = place(0, tick)
            self.canvas.rect(plot.x, y, plot.w, 0.6, LINE)
            self.canvas.text(plot.x - 6, y + 4, shown(tick, unit), size=10, fill=FAINT, anchor="end")
        for name, lower, one in reversed(tops) if stacked else tops:
            color = colors[name]
            if drawn_as_bars:
                width = plot.w / len(times)
                for step, (below, value) in enumerate(zip(lower, one, strict=True)):
                    if value > below:
                        x, y = place(step, value)
                        self.canvas.rect(x - width / 2, y, width, place(step, below)[1] - y, color)
            elif stacked:
                upper = [place(step, value) for step, value in enumerate(one)]
                under = [place(step, value) for step, value in enumerate(lower)]
                self.canvas.path([*upper, *reversed(under)], color, filled=True)
            else:
                for piece in pieces(one):
                    self.canvas.path([place(step, value) for step, value in piece], color)
        self._times(plot)
        self._legend(box, [(name, colors[name]) for name in names])

    def _times(self, plot: Box) -> None:
        for part in range(5):
            at = self._start + (self._end - self._start) * part / 4
            minutes, seconds = divmod(round(at - self._start), 60)
            anchor = ("start", "middle", "middle", "middle", "end")[part]
            x = plot.x + plot.w * part / 4
            self.canvas.text(x, plot.y + plot.h + 14, f"{minutes}:{seconds:02}", size=10, fill=FAINT, anchor=anchor)

    def _legend(self, box: Box, names: list[tuple[str, str]]) -> None:
        x, y = box.x, box.y + box.h - 12
        for name, color in names:
            width = 20 + 5.7 * len(name)
            if x + width > box.x + box.w and x > box.x:
                x, y = box.x, y + 13
            self.canvas.rect(x, y - 3, 10, 4, color, radius=2)
            self.canvas.text(x + 14, y + 2, name, size=10)
            x += width + 6

    def _heatmap(self, panel: dict[str, Any], box: Box) -> None:
        rows = sorted(self._query(panel["targets"][0]), key=lambda one: float(one[1].labels["le"]))
        plot = Box(box.x + 46, box.y + 4, box.w - 52, box.h - 28)
        cells: dict[tuple[int, int], float] = {}
        columns = 48
        below: dict[int, float] = {}
        for row, (_, series) in enumerate(rows):
            sums: dict[int, float] = {}
            for at, value in series.values:
                column = min(columns - 1, int((at - self._start) / (self._end - self._start) * columns))
                sums[column] = sums.get(column, 0.0) + value
            for column, value in sums.items():
                cells[row, column] = max(0.0, value - below.get(column, 0.0))
            below = sums
        most = max(cells.values(), default=1.0) or 1.0
        height, width = plot.h / max(1, len(rows)), plot.w / columns
        self.canvas.rect(plot.x, plot.y, plot.w, plot.h, PAPER)
        for (row, column), value in cells.items():
            if value > 0.01:
                shade = HEAT[min(len(HEAT) - 1, int(value / most * len(HEAT)))]
                y = plot.y + plot.h - (row + 1) * height
                self.canvas.rect(plot.x + column * width, y, width - 0.6, height - 0.6, shade)
        for row, (_, series) in enumerate(rows):
            label = "more" if series.labels["le"] == "+Inf" else shown(float(series.labels["le"]), "s")
            y = plot.y + plot.h - (row + 0.5) * height + 3.5
            self.canvas.text(plot.x - 6, y, label, size=10, fill=FAINT, anchor="end")
        self._times(plot)

    def _table(self, panel: dict[str, Any], box: Box) -> None:
        organized = next(t["options"] for t in panel["transformations"] if t["id"] == "organize")
        rows: dict[tuple[tuple[str, str], ...], dict[str, str]] = {}
        for target in panel["targets"]:
            for _, series in self._query(target, at_end=True):
                row = rows.setdefault(tuple(sorted(series.labels.items())), dict(series.labels))
                row[f"Value #{target['refId']}"] = f"{series.values[-1][1]:.0f}"
        columns = sorted(organized["renameByName"], key=organized["indexByName"].__getitem__)
        wide = [name for name in columns if not name.startswith("Value")]
        narrow = 94.0
        width = dict.fromkeys(columns, narrow)
        for name in wide:
            width[name] = (box.w - narrow * (len(columns) - len(wide))) / len(wide)
        room = int((box.h - 22) / 19)
        ordered = sorted(rows.values(), key=lambda row: (row["namespace"], row.get("tenant", ""), row.get("name", "")))
        x = box.x
        for name in columns:
            self.canvas.text(x, box.y + 12, organized["renameByName"][name], fill=FAINT, bold=True)
            for number, row in enumerate(ordered[:room]):
                y = box.y + 32 + number * 19
                self.canvas.text(x, y, clipped(row.get(name, "0"), width[name]))
            x += width[name]
        for number in range(len(ordered[:room])):
            self.canvas.rect(box.x, box.y + 18.5 + number * 19, box.w, 0.6, LINE)


def clipped(text: str, width: float) -> str:
    most = int(width / 6.3)
    return text if len(text) <= most else text[: most - 1] + "…"


def pieces(values: Sequence[float]) -> Iterable[list[tuple[int, float]]]:
    """The parts without a gap."""
    piece: list[tuple[int, float]] = []
    for step, value in enumerate(values):
        if math.isfinite(value):
            piece.append((step, value))
        elif piece:
            yield piece
            piece = []
    if piece:
        yield piece


def nice(highest: float) -> list[float]:
    """Round numbers from 0 to at least the highest."""
    if highest <= 0:
        return [0.0, 1.0]
    size = 10 ** math.floor(math.log10(highest / 4))
    step = next(size * factor for factor in (1, 2, 2.5, 5, 10) if size * factor * 4 >= highest)
    return [step * number for number in range(math.ceil(highest / step - 1e-9) + 1)]


def shown(value: float, unit: str, decimals: int | None = None) -> str:
    """A value as Grafana shows it."""
    if decimals is not None:
        return f"{value:.{decimals}f}"
    if unit == "percentunit":
        return f"{value * 100:.3g}%"
    if unit == "s":
        return f"{value * 1000:.3g} ms" if 0 < value < 1 else f"{value:.3g} s"
    if unit == "bytes":
        return f"{value / 2**20:.3g} MiB"
    suffix = {"ops": "/s", "reqps": "/s"}.get(unit, "")
    return f"{value:.3g}{suffix}" if value < 1000 else f"{value:.0f}{suffix}"


def threshold(value: float, steps: Sequence[dict[str, Any]]) -> str:
    return str([step["color"] for step in steps if step["value"] is None or value >= step["value"]][-1])


def draw(prometheus: Prometheus, start: float, end: float) -> str:
    """The rows of the dashboard one below the other, as SVG."""
    drawing = Drawing(prometheus, start, end)
    panels = json.loads((ROOT / DASHBOARD).read_text())["panels"]
    last = 0.0
    title = f"WhatsApp operator: four minutes of a demonstration, {datetime.fromtimestamp(start, UTC):%Y-%m-%d}"
    drawing.canvas.text(2 * GAP, 24, title, size=17, bold=True)
    row = ""
    for panel in panels:
        row = panel["title"] if panel["type"] == "row" else row
        if row not in ROWS:
            continue
        at = panel["gridPos"]
        if panel["type"] == "row":
            drawing.canvas.text(2 * GAP, 36 + at["y"] * UNIT + 22, row, size=14, bold=True, fill=FAINT)
        else:
            drawing.panel(panel, 36)
        last = max(last, 36 + (at["y"] + at["h"]) * UNIT)
    height = last + 2 * GAP
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH:g} {height:g}" width="{WIDTH:g}"'
        f' height="{height:g}" font-family="Inter, Roboto, \'Helvetica Neue\', Arial, sans-serif">'
        f'<rect width="100%" height="100%" fill="{PAPER}"/>\n' + "\n".join(drawing.canvas.parts) + "\n</svg>\n"
    )


def main() -> int:
    try:
        target = live_target()
    except ClusterError as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201
        return 1
    prometheus = start()
    began = time.time()
    with demonstration(target):
        PICTURE.write_text(draw(prometheus, began, time.time()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
