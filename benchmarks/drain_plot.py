"""A picture of a drain: how late each live row was, and what still waited."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Final

WIDTH: Final = 760
HEIGHT: Final = 300
LEFT: Final = 60
RIGHT: Final = 70
TOP: Final = 30
BOTTOM: Final = 40
DECADES: Final = (1, 10, 100, 1000)
"""Lateness is drawn from 1 ms to 1 s."""

_SVG: Final = (
    f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" '
    'font-family="sans-serif" font-size="11">'
)


def draw(
    path: Path,
    late_ms: Sequence[tuple[float, float]],
    owed: Sequence[tuple[float, int]],
    drained_s: float,
) -> None:
    """Write an SVG: seconds to the right, lateness (ms, by decades) and rows owed upwards."""
    end_s = max(at for at, _ in late_ms)
    most = max(rows for _, rows in owed) or 1

    def x(at: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * max(0.0, at) / end_s

    def y(share: float) -> float:
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * min(1.0, max(0.0, share))

    def decade(ms: float) -> float:
        return y(math.log10(max(ms, 1.0)) / 3.0)

    parts = [
        _SVG,
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        _text(LEFT, 18, "live rows: lateness (ms), one dot each; line: rows that wait (thousands)"),
    ]
    for ms in DECADES:
        parts.append(_line(LEFT, decade(ms), WIDTH - RIGHT, decade(ms), "#ddd"))
        parts.append(_text(LEFT - 8, decade(ms) + 4, str(ms), "end"))
    parts += [
        _text(x(at), HEIGHT - BOTTOM + 16, f"{at} s", "middle") for at in range(0, int(end_s), 30)
    ]
    parts += [
        _text(WIDTH - RIGHT + 8, y(share) + 4, f"{share * most / 1000:.1f}")
        for share in (0.0, 0.5, 1.0)
    ]
    parts.append(_line(x(drained_s), TOP, x(drained_s), HEIGHT - BOTTOM, "#999"))
    parts.append(_text(x(drained_s) + 4, TOP + 10, "drained"))
    parts.append(_line(LEFT, decade(100), WIDTH - RIGHT, decade(100), "#c33"))
    dots = "".join(
        f'<circle cx="{x(at):.1f}" cy="{decade(ms):.1f}" r="1.3"/>' for at, ms in late_ms if at >= 0
    )
    parts.append(f'<g fill="#2463a8" fill-opacity="0.5">{dots}</g>')
    line = " ".join(f"{x(at):.1f},{y(rows / most):.1f}" for at, rows in owed)
    parts.append(f'<polyline points="{line}" fill="none" stroke="#e08a1e" stroke-width="2"/>')
    path.write_text("\n".join([*parts, "</svg>", ""]), encoding="utf-8")


def _text(x: float, y: float, text: str, anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{text}</text>'


def _line(x1: float, y1: float, x2: float, y2: float, color: str) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{color}"/>'
