"""How charts look: light and dark, letters that grow with the width, colours that the colour-blind tell apart.

The colours are Okabe and Ito's, those too pale on white darkened until each has 3:1 against its ground (WCAG 1.4.11);
text has at least 7:1. Liberation Sans is what the renderer measures with, and is as wide as Arial everywhere else.
"""

from dataclasses import dataclass
from typing import Any, Literal

Name = Literal["light", "dark"]
FONT = "Liberation Sans, Arial, Helvetica, DejaVu Sans, sans-serif"
NARROW = 520  # pixels; below it legends go beneath, and there are fewer ticks


@dataclass(frozen=True)
class Theme:
    """The colours of one ground."""

    ground: str
    text: str
    muted: str
    line: str
    grid: str
    series: tuple[str, ...]
    other: str
    ramp: tuple[str, ...]  # from little to much
    fill: str  # of a diagram's nodes


THEMES: dict[Name, Theme] = {
    "light": Theme(
        ground="#ffffff",
        text="#1b1f24",
        muted="#4b5560",
        line="#8a939d",
        grid="#e6e9ec",
        series=("#0072b2", "#d55e00", "#008f68", "#b5488f", "#a67500", "#3391cc", "#7a5cc4", "#5c6670"),
        other="#8a8f94",
        ramp=("#e8f1f8", "#a9cfe7", "#5ba3cf", "#1f77b4", "#0b4f86", "#062f55"),
        fill="#e8f1f8",
    ),
    "dark": Theme(
        ground="#15191e",
        text="#f0f3f6",
        muted="#b4bcc5",
        line="#6b7580",
        grid="#2b323a",
        series=("#56b4e9", "#ff8c42", "#2fc59a", "#e08fc4", "#e6b325", "#8fb8ff", "#b9a3ff", "#c3cad2"),
        other="#8f979f",
        ramp=("#1d2b38", "#1f4e74", "#2a77a8", "#56b4e9", "#a5d8f5", "#e3f4fd"),
        fill="#1d2b38",
    ),
}


def font_size(width: int) -> float:
    """The size of letters in pixels: readable on a telephone, not lost on a wall."""
    return round(min(18.0, max(11.0, 10 + width / 250)), 1)


def ticks(width: int) -> int:
    """How many ticks the axis below a chart has, about."""
    return 4 if width < NARROW else max(5, width // 130)


def config(name: Name, width: int) -> dict[str, Any]:
    """Vega-Lite's configuration."""
    theme, size = THEMES[name], font_size(width)
    narrow = width < NARROW
    letters = {"labelFont": FONT, "titleFont": FONT, "labelFontSize": size, "titleFontSize": size}
    return {
        "background": theme.ground,
        "font": FONT,
        "view": {"stroke": None},
        "padding": round(size),
        "title": {
            "font": FONT,
            "fontSize": round(size * 1.3, 1),
            "fontWeight": "bold",
            "color": theme.text,
            "subtitleFont": FONT,
            "subtitleFontSize": size,
            "subtitleColor": theme.muted,
            "subtitlePadding": round(size * 0.4),
            "anchor": "start",
            "frame": "group",
            "offset": round(size),
            "limit": width - 2 * round(size),
        },
        "axis": {
            **letters,
            "labelColor": theme.muted,
            "titleColor": theme.text,
            "titleFontWeight": "normal",
            "titlePadding": round(size * 0.6),
            "labelLimit": round(width * (0.32 if narrow else 0.26)),
            "labelPadding": 6,
            "domainColor": theme.line,
            "tickColor": theme.line,
            "gridColor": theme.grid,
            "tickSize": 4,
            "labelOverlap": "greedy",
            "labelSeparation": 6,
        },
        "axisX": {"tickCount": ticks(width)},
        "axisY": {"tickCount": 5},
        "legend": {
            **letters,
            "labelColor": theme.text,
            "titleColor": theme.muted,
            "titleFontWeight": "normal",
            "labelLimit": round(width * (0.4 if narrow else 0.2)),
            "symbolSize": round(size * 9),
            "orient": "bottom" if narrow else "right",
            **({"columns": 2} if narrow else {}),
        },
        "range": {"category": list(theme.series), "ramp": list(theme.ramp), "heatmap": list(theme.ramp)},
        "bar": {"color": theme.series[0], "cornerRadiusEnd": 2},
        "line": {"color": theme.series[0], "strokeWidth": 2.5 if width > NARROW else 2, "strokeJoin": "round"},
        "area": {"color": theme.series[0], "opacity": 0.85},
        "point": {"color": theme.series[0], "filled": True},
        "rect": {"color": theme.series[0]},
        "rule": {"color": theme.muted},
        "tick": {"color": theme.text},
        "text": {"font": FONT, "fontSize": size, "color": theme.text},
        "arc": {"stroke": theme.ground, "strokeWidth": 2},
    }
