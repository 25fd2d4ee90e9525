#!/usr/bin/env python3
"""Runs the commands of the manual in throwaway networks, and draws what a terminal shows of each as an SVG beside this file.

`cargo build --workspace && plugin/manual/pictures/record.py` needs no root. Standard library only.
"""

import os
import pathlib
import re
import subprocess
import sys
import tempfile
from xml.sax.saxutils import escape

HERE = pathlib.Path(__file__).resolve().parent
REPOSITORY = HERE.parents[2]
COLUMNS, FONT, LINE, PADDING = 96, 14, 20, 16
CHARACTER = FONT * 0.602
INK, PAPER = "#d8dee6", "#161b22"
# The colours that flatnet and clap use (SGR 31 to 34), readable on the paper above.
COLOURS = {31: "#ff7b72", 32: "#5fcf80", 33: "#e3b341", 34: "#79b8ff", 36: "#76d7d0"}

FAILING = """summary = "a container gets an address that it does not get"
[run]
steps = [
  { add = "web" },
  { add = "db", expect = { address = "10.87.1.9/24" } },
]
"""

# Two containers, of which one is cut off: what doctor and status are for.
BROKEN = "ip netns exec web ip link set eth0 down; echo 0 >/proc/sys/net/ipv4/ip_forward"


def harness(*arguments, script=None, cwd=REPOSITORY):
    target = next(REPOSITORY.glob("target/*/debug/harness"), REPOSITORY / "target/debug/harness")
    environment = dict(os.environ, COLUMNS=str(COLUMNS), SHELL="/bin/sh", LANG="C.UTF-8", LC_ALL="C.UTF-8",
                       FLATNET_PLUGIN_DIR=str(target.parent))
    for name in ("NO_COLOR", "CI"):
        environment.pop(name, None)
    done = subprocess.run([target, *arguments, "--color", "always"], input=script, stdout=subprocess.PIPE, cwd=cwd,
                          env=environment, text=True, check=False)
    # Where the checkout is differs between machines.
    return done.stdout.replace(str(target.parent), "target/debug")


def in_world(command, before="true"):
    """What `command` prints in the world that `harness shell` opens."""
    mark = "=== recorded ==="
    said = harness("shell", script=f"{before}\necho '{mark}'\n{command} --color always\n")
    if mark not in said:
        sys.exit(f"record.py: no world was opened: {said}")
    return said.split(mark + "\n", 1)[1]


def failing():
    with tempfile.TemporaryDirectory() as folder:
        (pathlib.Path(folder) / "wrong-address.toml").write_text(FAILING)
        said = harness("run", "wrong-address.toml", cwd=folder)
    return said


PICTURES = {
    "demo": ("cargo run -p harness -- demo", lambda: harness("demo")),
    "ls": ("sudo flatnet ls", lambda: in_world("flatnet ls")),
    "status": ("sudo flatnet status", lambda: in_world("flatnet status", "ip netns exec web ip link set eth0 down")),
    "doctor": ("sudo flatnet doctor", lambda: in_world("flatnet doctor", BROKEN)),
    "failing-scenario": ("cargo run -p harness -- run wrong-address.toml", failing),
}


def rows(line, style):
    """The parts of a line with their styles, broken where a terminal of that width breaks it. `style` goes on from line to line."""
    row, room = [], COLUMNS
    for words, style in spans(line, style):
        while len(words) > room:
            yield row + [(words[:room], style)]
            row, words, room = [], words[room:], COLUMNS
        row, room = row + [(words, style)], room - len(words)
    yield row


def spans(line, style):
    parts = []
    for part in re.split(r"(\x1b\[[0-9;]*m)", line):
        if not part.startswith("\x1b["):
            if part:
                parts.append((part, dict(style)))
            continue
        for code in (int(number or 0) for number in part[2:-1].split(";")):
            if code == 0:
                style.clear()
            elif code == 1:
                style["font-weight"] = "bold"
            elif code == 2:
                style["opacity"] = "0.65"
            elif code == 4:
                style["text-decoration"] = "underline"
            elif code % 60 in COLOURS or code in COLOURS:
                style["fill"] = COLOURS.get(code) or COLOURS[code % 60]
    return parts


def draw(command, said):
    said = f"\x1b[2m$\x1b[0m \x1b[1m{command}\x1b[0m\n" + said.rstrip("\n")
    style = {}
    lines = [row for line in said.split("\n") for row in rows(line, style)]
    width = PADDING * 2 + COLUMNS * CHARACTER
    height = PADDING * 2 + len(lines) * LINE
    yield (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height}" width="{width:.0f}" height="{height}" '
           f'font-family="ui-monospace, \'DejaVu Sans Mono\', Menlo, Consolas, monospace" font-size="{FONT}">')
    yield f"<title>{escape(command)}</title>"
    yield f'<rect width="100%" height="100%" rx="8" fill="{PAPER}"/>'
    for number, line in enumerate(lines):
        y, column = PADDING + number * LINE + FONT, 0
        for words, style in line:
            column += len(words)
            if not words.strip():
                continue
            # Blanks at the beginning are room, and no text.
            blanks = len(words) - len(words.lstrip())
            words, begin = words.strip(), column - len(words) + blanks
            attributes = "".join(f' {name}="{value}"' for name, value in sorted(style.items()) if name != "fill")
            length = len(words) * CHARACTER
            yield (f'<text x="{PADDING + begin * CHARACTER:.1f}" y="{y}" fill="{style.get("fill", INK)}"{attributes} '
                   f'textLength="{length:.1f}" xml:space="preserve">{escape(words)}</text>')
    yield "</svg>"


def main():
    wanted = sys.argv[1:] or PICTURES
    for name in wanted:
        command, record = PICTURES[name]
        (HERE / f"{name}.svg").write_text("\n".join(draw(command, record())) + "\n")
        print(f"{name}.svg")


if __name__ == "__main__":
    main()
