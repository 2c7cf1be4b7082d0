"""A page read back by the standard library's parser."""

from html.parser import HTMLParser
from pathlib import Path

from supernet.report.page import write_report

VOID = {"meta", "br", "img", "hr", "link", "input"}


class Page(HTMLParser):
    """The elements by id with all that lies in them, the visible text, the cells of the tables, and
    whether every tag is closed in its place.
    """

    def __init__(self, html: str):
        super().__init__()
        self.open: list[tuple[str, str | None]] = []
        self.ids: list[str] = []
        self.paths: dict[str, list[str]] = {}
        self.tags: set[str] = set()
        self.attributes: list[tuple[str, str | None]] = []
        self.pieces: list[str] = []
        self.tables: list[list[list[str]]] = []  # rows of cells, the headings first
        self.feed(html)
        self.close()
        assert self.open == []
        self.text = " ".join(self.pieces)

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        self.tags.add(tag)
        self.attributes += attrs
        if "id" in found:
            self.ids.append(found["id"])
        if tag == "path":
            for _, within in [*self.open, (tag, found.get("id"))]:
                if within:
                    self.paths.setdefault(within, []).append(found["d"])
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("th", "td"):
            self.tables[-1][-1].append("")
        if tag not in VOID:
            self.open.append((tag, found.get("id")))

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.handle_endtag(tag)

    def handle_endtag(self, tag):
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop()[0] == tag

    def handle_data(self, data):
        if not self.open or self.open[-1][0] != "style":
            self.pieces.append(data)
        if self.open and self.open[-1][0] in ("th", "td"):
            self.tables[-1][-1][-1] += data


def read(folder: Path) -> tuple[Page, str]:
    """The page of a run's folder, read back and as it is."""
    html = write_report(folder).read_text(encoding="utf-8")
    return Page(html), html
