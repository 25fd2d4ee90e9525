#!/usr/bin/env python3
"""Draws paths.svg, the picture of the README: a request today, through three NATs, and with flatnet, through none.

`plugin/manual/pictures/paths.py` writes the file beside itself. Standard library only.
"""

import pathlib
from xml.sax.saxutils import escape

WIDTH, ROW, BOX_HEIGHT = 1160, 170, 74
BLUE, GREEN, RED, INK, PAPER = "#2b5fab", "#2a7d46", "#b3362c", "#1f2328", "#ffffff"

# Each row: title, colour of its arrows, boxes (name, second line), words above and below each arrow.
ROWS = [
    ("Today: three NATs, one port for each container", RED,
     [("LAN client", "192.168.50.20"), ("Windows", "192.168.50.1:8080"), ("WSL2", "172.30.0.2:8080"), ("Podman", "host port 8080"),
      ("container", "10.88.0.5:80")],
     [("http", ""), ("NAT 1", "portproxy"), ("NAT 2", "WSL"), ("NAT 3", "port map")]),
    ("With flatnet: one gateway, no NAT, no ports to map", GREEN,
     [("LAN client", "http://web.flat/"), ("Windows", "OpenResty"), ("WSL2", "flatnet-br0"), ("container", "10.87.1.2:80")],
     [("http", ""), ("route", "10.87.1.0/24"), ("veth", "")]),
]


def text(x, y, words, size, colour=INK, weight="normal", anchor="middle"):
    return (f'<text x="{x:.0f}" y="{y:.0f}" font-size="{size}" fill="{colour}" font-weight="{weight}" '
            f'text-anchor="{anchor}">{escape(words)}</text>')


def row(top, title, colour, boxes, arrows):
    width = 150
    gap = (WIDTH - 60 - width * len(boxes)) / (len(boxes) - 1)
    middle = top + 50 + BOX_HEIGHT / 2
    yield text(30, top + 26, title, 20, weight="bold", anchor="start")
    for number, (name, line) in enumerate(boxes):
        left = 30 + number * (width + gap)
        yield (f'<rect x="{left:.0f}" y="{top + 50}" width="{width}" height="{BOX_HEIGHT}" rx="8" fill="#eef3fa" '
               f'stroke="{BLUE}" stroke-width="1.5"/>')
        yield text(left + width / 2, middle - 6, name, 17, weight="bold")
        yield text(left + width / 2, middle + 18, line, 14)
        if number < len(arrows):
            start, end = left + width + 4, left + width + gap - 4
            yield (f'<line x1="{start:.0f}" y1="{middle:.0f}" x2="{end - 8:.0f}" y2="{middle:.0f}" stroke="{colour}" '
                   f'stroke-width="2.5" marker-end="url(#tip-{colour[1:]})"/>')
            above, below = arrows[number]
            yield text((start + end) / 2, middle - 10, above, 13, colour, "bold")
            yield text((start + end) / 2, middle + 22, below, 13, colour)


def picture():
    height = ROW * len(ROWS) + 10
    yield (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
           'font-family="DejaVu Sans, Segoe UI, Helvetica, Arial, sans-serif" role="img">')
    yield f"<title>{escape(' / '.join(title for title, *_ in ROWS))}</title><defs>"
    for colour in sorted({colour for _, colour, *_ in ROWS}):
        yield (f'<marker id="tip-{colour[1:]}" viewBox="0 0 10 10" refX="2" refY="5" markerWidth="5" markerHeight="5" orient="auto">'
               f'<path d="M0 0L10 5L0 10z" fill="{colour}"/></marker>')
    yield f'</defs><rect width="{WIDTH}" height="{height}" rx="10" fill="{PAPER}"/>'
    for number, (title, colour, boxes, arrows) in enumerate(ROWS):
        yield from row(10 + number * ROW, title, colour, boxes, arrows)
    yield "</svg>"


if __name__ == "__main__":
    pathlib.Path(__file__).with_suffix(".svg").write_text("\n".join(picture()) + "\n")
