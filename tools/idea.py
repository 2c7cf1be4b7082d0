"""Draws the picture of the idea in the README: ``.github/idea.svg``.

    python tools/idea.py

The upper row is a step of the search, the lower row what comes after it. ``tests/test_readme.py``
holds that the file is what this tool draws.
"""

from html import escape
from pathlib import Path
from typing import NamedTuple

FILE = Path(__file__).resolve().parents[1] / ".github" / "idea.svg"
WIDTH, HEIGHT, GAP, MARGIN = 132, 58, 34, 14
ROWS = 60, 196  # the upper edges of the boxes
SEARCH, AFTER = "#d9e8fb", "#e2f2dc"


class Box(NamedTuple):
    """A box in column ``column`` of row ``row``, with a bold line and a small one."""

    column: int
    row: int
    name: str
    what: str

    @property
    def left(self) -> int:
        return MARGIN + self.column * (WIDTH + GAP)

    @property
    def top(self) -> int:
        return ROWS[self.row]

    @property
    def middle(self) -> tuple[int, int]:
        return self.left + WIDTH // 2, self.top + HEIGHT // 2


UPPER = [
    Box(0, 0, "logits", "one for each option"),
    Box(1, 0, "sampler", "decides what to run"),
    Box(2, 0, "mixture", "how much of each option"),
    Box(3, 0, "supernet", "holds all operations"),
    Box(4, 0, "loss", "of a batch of images"),
]
LOWER = [
    Box(0, 1, "derive", "searcher, budget"),
    Box(1, 1, "architecture", "one option a decision"),
    Box(2, 1, "standalone", "plain PyTorch"),
    Box(3, 1, "retrain", "from scratch"),
    Box(4, 1, "export", "five forms"),
]


def line(text: str, x: int, y: int, style: str) -> str:
    return f'<text x="{x}" y="{y}" class="{style}">{escape(text)}</text>'


def drawn(box: Box) -> list[str]:
    x, y = box.middle
    place = f'x="{box.left}" y="{box.top}" width="{WIDTH}" height="{HEIGHT}"'
    fill = (SEARCH, AFTER)[box.row]
    return [
        f'<rect {place} rx="8" fill="{fill}" stroke="#555"/>',
        line(box.name, x, y - 4, "name"),
        line(box.what, x, y + 15, "what"),
    ]


def arrow(path: str) -> str:
    return f'<path d="{path}" class="arrow" marker-end="url(#head)"/>'


def picture() -> str:
    """The whole picture as the text of an SVG."""
    width, height = 2 * MARGIN + 5 * WIDTH + 4 * GAP, 272
    first, last = UPPER[0], UPPER[-1]
    parts = [part for box in UPPER + LOWER for part in drawn(box)]
    for row in (UPPER, LOWER):
        parts += [arrow(f"M{box.left + WIDTH},{box.middle[1]} h{GAP - 7}") for box in row[:-1]]
    above = 24
    parts += [  # the learner, from the loss back to the logits; and down to the second row
        arrow(f"M{last.middle[0]},{last.top} V{above} H{first.middle[0]} V{first.top - 7}"),
        line("learner: moves the logits; the weights move by SGD", width // 2, above - 7, "what"),
        arrow(f"M{first.middle[0]},{first.top + HEIGHT} V{LOWER[0].top - 7}"),
        line("after the search", first.middle[0] + 62, (first.top + HEIGHT + ROWS[1]) // 2, "what"),
    ]
    body = "\n".join(parts)
    return f"""<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img">
<title>Logits, sampler, mixture, supernet, loss, learner; then derive, retrain and export</title>
<style>
text {{ font-family: sans-serif; text-anchor: middle; fill: #222; }}
.name {{ font-size: 15px; font-weight: bold; }}
.what {{ font-size: 11px; }}
.arrow {{ fill: none; stroke: #555; stroke-width: 1.5; }}
</style>
<defs><marker id="head" markerWidth="7" markerHeight="8" refY="4" orient="auto"
  markerUnits="userSpaceOnUse">
<path d="M0,0 L7,4 L0,8 z" fill="#555"/></marker></defs>
<rect width="{width}" height="{height}" fill="#fff"/>
{body}
</svg>
"""


if __name__ == "__main__":
    FILE.write_text(picture(), encoding="utf-8")
