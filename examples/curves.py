"""Numbers of several models -> tables and pictures of them, as text; the models keep their order in both."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

COLOURS = {
    "dense": "#444444",
    "s2": "#c2410c",
    "longgen": "#1d4ed8",
    "FastGen": "#c2410c",
    "SnapKV": "#1d4ed8",
    "AdaKV": "#15803d",
    "streaming": "#a16207",
}


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[n]) for row in (head, *rows)) for n in range(len(head))]
    return "\n".join(
        "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in (head, *rows)
    )


def curves(losses: dict[str, list[float]], intervals: int) -> tuple[list[int], dict[str, list[float]]]:
    """The mean loss of each of up to `intervals` equal runs of steps, and the last step of each."""
    steps = len(next(iter(losses.values())))
    ends = sorted({steps * (n + 1) // intervals for n in range(intervals)} - {0})
    spans = list(zip([0, *ends], ends, strict=False))
    return ends, {name: [statistics.fmean(each[a:b]) for a, b in spans] for name, each in losses.items()}


def picture(ends: list[int], lines: dict[str, list[float]], title: str) -> str:
    """The curves as SVG text."""
    width, height, left, top, right, bottom = 640, 360, 52, 36, 16, 40
    values = [value for line in lines.values() for value in line]
    low, high = math.floor(min(values) * 5) / 5, math.ceil(max(values) * 5) / 5

    def x(step: float) -> float:
        return left + (width - left - right) * step / ends[-1]

    def y(loss: float) -> float:
        return top + (height - top - bottom) * (high - loss) / (high - low)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        'font-family="sans-serif" font-size="12">',
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
        f'<text x="{left}" y="20" font-size="13">{title}</text>',
    ]
    ticks = round((high - low) * 5)
    for n in range(0, ticks + 1, max(1, ticks // 8)):
        at = low + n / 5
        parts.append(f'<path d="M{left} {y(at):.1f}H{width - right}" stroke="#dddddd"/>')
        parts.append(f'<text x="{left - 6}" y="{y(at) + 4:.1f}" text-anchor="end">{at:.1f}</text>')
    for n in range(5):
        at = ends[-1] * n / 4
        parts.append(f'<text x="{x(at):.1f}" y="{height - bottom + 18}" text-anchor="middle">{at:.0f}</text>')
    parts.append(f'<text x="{(left + width) / 2:.0f}" y="{height - 6}" text-anchor="middle">step</text>')
    for n, (name, line) in enumerate(lines.items()):
        points = " ".join(f"{x(end):.1f},{y(value):.1f}" for end, value in zip(ends, line, strict=True))
        dashes = f' stroke-dasharray="{3 * n} {2 * n}"' if n else ""
        colour = COLOURS[name]
        parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"{dashes}/>')
        parts.append(f'<text x="{width - right - 70}" y="{top + 18 * (n + 1)}" fill="{colour}">{name}</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"


def trade(lines: dict[str, list[tuple[float, float]]], title: str) -> str:
    """Values found (up) by bytes kept (to the right), both from 0 to 1, a line of points for each method; SVG text."""
    width, height, left, top, right, bottom = 640, 360, 52, 36, 110, 40
    wide, high = width - left - right, height - top - bottom
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        'font-family="sans-serif" font-size="12">',
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
        f'<text x="{left}" y="20" font-size="13">{title}</text>',
    ]
    for n in range(6):
        x, y, label = left + wide * n / 5, top + high * (5 - n) / 5, f"{20 * n}%"
        parts.append(f'<path d="M{left} {y:.1f}H{left + wide}" stroke="#dddddd"/>')
        parts.append(f'<text x="{left - 6}" y="{y + 4:.1f}" text-anchor="end">{label}</text>')
        parts.append(f'<text x="{x:.1f}" y="{height - bottom + 18}" text-anchor="middle">{label}</text>')
    middle = left + wide / 2
    parts.append(f'<text x="{middle:.0f}" y="{height - 6}" text-anchor="middle">of the dense cache\'s bytes</text>')
    for n, (name, line) in enumerate(lines.items()):
        colour, at = COLOURS[name], [(left + wide * x, top + high * (1 - y)) for x, y in line]
        joined = " ".join(f"{x:.1f},{y:.1f}" for x, y in at)
        parts.append(f'<polyline points="{joined}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{colour}"/>' for x, y in at]
        parts.append(f'<circle cx="{left + wide + 22}" cy="{top + 14 + 18 * n}" r="4" fill="{colour}"/>')
        parts.append(f'<text x="{left + wide + 32}" y="{top + 18 + 18 * n}" fill="{colour}">{name}</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"
