#!/usr/bin/env python3
"""Draws throughput against latency from lines of `mayfly bench --json`.

    benches/plot/throughput.py RUNS.jsonl... > docs/throughput.svg

One line per mode and quantile; a point is one run, and more exchanges are in flight from point to point. Nothing but Python 3 is needed.
"""

import json
import math
import sys
from html import escape

WIDTH, HEIGHT = 860, 520
LEFT, RIGHT, TOP, BOTTOM = 84, 190, 56, 76
# Told apart by shape and dashes as well as by color; the colors stand out on white and on black.
MODES = {"stream": ("#2f86d6", "circle"), "batch": ("#c9740a", "square"), "unary": ("#2f9e5b", "triangle")}
QUANTILES = {"p50_ms": ("p50", ""), "p99_ms": ("p99", "6 4")}


def nice(top):
    """Round steps from 0 to at least `top`, five or so of them."""
    power = 10 ** math.floor(math.log10(top / 4))
    step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power * 5 >= top)
    return [n * step for n in range(math.ceil(top / step) + 1)]


def marker(shape, x, y, color, filled):
    fill = color if filled else "none"
    look = f'fill="{fill}" stroke="{color}" stroke-width="1.6"'
    if shape == "circle":
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" {look}/>'
    if shape == "square":
        return f'<rect x="{x - 3.6:.1f}" y="{y - 3.6:.1f}" width="7.2" height="7.2" {look}/>'
    return f'<path d="M{x:.1f} {y - 4.6:.1f}l4.4 8h-8.8z" {look}/>'


def draw(runs):
    modes = [mode for mode in MODES if any(run["mode"] == mode for run in runs)]
    if not modes:
        raise SystemExit("no line is a run of stream, batch or unary")
    xs = nice(max(run["issued_per_s"] for run in runs))
    values = [run[q] for run in runs for q in QUANTILES if run[q] > 0]
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    high = max(high, low + 1)
    right, bottom = WIDTH - RIGHT, HEIGHT - BOTTOM

    def x(rate):
        return LEFT + (right - LEFT) * rate / xs[-1]

    def y(ms):
        return bottom - (bottom - TOP) * (math.log10(ms) - low) / (high - low)

    told = "; ".join(
        f"{mode}: {len(own)} runs, up to {max(r['issued_per_s'] for r in own):.0f} a second, "
        f"p50 {min(r['p50_ms'] for r in own):.2f} to {max(r['p50_ms'] for r in own):.2f} ms, "
        f"p99 {min(r['p99_ms'] for r in own):.2f} to {max(r['p99_ms'] for r in own):.2f} ms"
        for mode in modes
        for own in [[r for r in runs if r["mode"] == mode]]
    )
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-labelledby="title desc">',
        '<title id="title">Throughput against latency of issuing, by mode</title>',
        f'<desc id="desc">{escape(told)}.</desc>',
        "<style>text{font:13px system-ui,sans-serif;fill:#57606a}.head{font-size:15px;font-weight:600}.grid{stroke:#8c959f;stroke-opacity:.35}"
        ".axis{stroke:#8c959f}@media(prefers-color-scheme:dark){text{fill:#adb5bd}}</style>",
        f'<text class="head" x="{LEFT}" y="26">Durable, audited issuances: throughput against latency</text>',
    ]
    for tick in xs:
        out.append(f'<path class="grid" d="M{x(tick):.1f} {TOP}V{bottom}"/>')
        out.append(f'<text x="{x(tick):.1f}" y="{bottom + 20}" text-anchor="middle">{tick:,.0f}</text>')
    for power in range(low, high + 1):
        at = y(10**power)
        out.append(f'<path class="grid" d="M{LEFT} {at:.1f}H{right}"/>')
        out.append(f'<text x="{LEFT - 8}" y="{at + 4:.1f}" text-anchor="end">{10.0**power:g}</text>')
    out.append(f'<path class="axis" fill="none" d="M{LEFT} {TOP}V{bottom}H{right}"/>')
    out.append(f'<text x="{(LEFT + right) / 2}" y="{bottom + 46}" text-anchor="middle">issued a second</text>')
    middle = (TOP + bottom) / 2
    out.append(f'<text x="24" y="{middle}" text-anchor="middle" transform="rotate(-90 24 {middle})">latency, ms (logarithmic)</text>')
    at = TOP + 10
    for mode in modes:
        color, shape = MODES[mode]
        own = sorted((r for r in runs if r["mode"] == mode), key=lambda r: r["concurrency"])
        for quantile, (name, dashes) in QUANTILES.items():
            points = [(x(r["issued_per_s"]), y(r[quantile])) for r in own]
            line = " ".join(f"{px:.1f},{py:.1f}" for px, py in points)
            dash = f' stroke-dasharray="{dashes}"' if dashes else ""
            out.append(f'<polyline points="{line}" fill="none" stroke="{color}" stroke-width="2"{dash}/>')
            for run, (px, py) in zip(own, points):
                what = f"{mode} {name}, {run['concurrency']} in flight: {run[quantile]:.2f} ms at {run['issued_per_s']:.0f} a second"
                out.append(f"<g><title>{escape(what)}</title>{marker(shape, px, py, color, not dashes)}</g>")
            out.append(f'<path d="M{right + 20} {at}h34" stroke="{color}" stroke-width="2"{dash}/>')
            out.append(marker(shape, right + 37, at, color, not dashes))
            out.append(f'<text x="{right + 62}" y="{at + 4}">{mode}, {name}</text>')
            at += 24
    flights = sorted({run["concurrency"] for run in runs})
    out.append(f'<text x="{right + 20}" y="{at + 14}">{flights[0]} to {flights[-1]}</text>')
    out.append(f'<text x="{right + 20}" y="{at + 32}">in flight</text>')
    out.append("</svg>")
    return "\n".join(out) + "\n"


def main():
    runs = []
    for path in sys.argv[1:] or ["/dev/stdin"]:
        with open(path, encoding="utf-8") as lines:
            runs.extend(json.loads(line) for line in lines if line.strip())
    sys.stdout.write(draw(runs))


if __name__ == "__main__":
    main()
