"""The pages are true: their Python runs, their commands and settings are understood, their links
lead somewhere, their tables name every choice that there is.
"""

import re
import shlex
from dataclasses import asdict
from pathlib import Path

import pytest
import yaml

from supernet.cli.composition import composed
from supernet.cli.line import parse
from supernet.cli.messages import COMMANDS
from supernet.cli.overrides import single_jobs
from supernet.config import SEVERAL, Config
from supernet.files import read_json
from tests.commands import ROOT, TINY, finished
from tests.tools.test_bench import RATIOS, REST
from tools import idea

README = ROOT / "README.md"
SETTINGS = ROOT / "conf" / "README.md"
TOOLS = ROOT / "tools" / "README.md"
HISTORY = ROOT / "supernet" / "CHANGELOG.md"  # names what there was
INSIDE = (".github", "conf", "supernet", "tests", "tools")
PAGES = [README, *(page for top in INSIDE for page in sorted((ROOT / top).rglob("*.md")))]
TODAY = [page for page in PAGES if page != HISTORY]
NEEDED = {
    "data=text": "data.source.path=x",
    "data=npz": "data.source.path=x",
    "data=folder": "data.source.root=x",
}
NEEDED |= {"space=module": "space.model=x.py:X"}


def name_of(page):
    return str(page.relative_to(ROOT))


def text_of(page):
    return page.read_text(encoding="utf-8")


def blocks(page):
    """Language and text of each code block of a page."""
    return re.findall(r"^```(\w*)\n(.*?)^```$", text_of(page), re.M | re.S)


def prose(page):
    return re.sub(r"^```\w*\n.*?^```$", "", text_of(page), flags=re.M | re.S)


def spans(text):
    """What stands in backticks."""
    return re.findall(r"`([^`\n]+)`", text)


def commands(page, first):
    """The commands in the code blocks of a page that begin with the word ``first``; a backslash at
    the end of a line continues it.
    """
    joined = "\n".join(re.sub(r"\\\n\s*", "", text) for _, text in blocks(page))
    return re.findall(rf"^{first} .*?(?=\s+#|$)", joined, re.M)


def understood(words):
    """Composes each job of a command line, with every value checked; that it also runs is what the
    tests of the command line show.
    """
    line = parse(words)
    for overrides in single_jobs(line.overrides) if line.sweeps else [line.overrides]:
        composed(overrides)


def test_the_pages_are_there():
    found = {name_of(page) for page in PAGES}
    assert found > {"README.md", "conf/README.md", "tools/README.md", ".github/CONTRIBUTING.md"}
    listed = {
        name_of((README.parent / link).resolve()) for link in links(README) if link.endswith(".md")
    }
    assert found - {"README.md"} == listed, "the README lists every page"


# --- the README


def test_it_opens_with_the_two_commands():
    assert text_of(README).split("```")[1].split("\n")[1:3] == [
        "pip install uv && uv run supernet",
        "pip install uv && uv run pytest",
    ]
    assert "pip install uv && uv run pytest" in (ROOT / ".ci" / "run").read_text()


def test_it_is_short():
    assert len(README.read_bytes()) <= 12_000


def test_its_python_runs(capsys):
    (code,) = [text for language, text in blocks(README) if language == "python"]
    exec(compile(code, "README.md", "exec"), {})
    assert re.fullmatch(
        r"\|.+~0\|\+\|.+~0\|.+~1\|\+\|.+~0\|.+~1\|.+~2\|\n", capsys.readouterr().out
    )


def test_its_picture_is_what_the_tool_draws():
    assert idea.FILE.read_text(encoding="utf-8") == idea.picture()
    assert str(idea.FILE.relative_to(ROOT)) in links(README)


def test_it_names_every_command():
    rows = re.findall(r"^\| `(\w+)` \|", section(README, "## Commands"), re.M)
    assert sorted(rows) == sorted(COMMANDS)


OPTIONS = {
    folder.name: sorted(path.stem for path in folder.glob("*.yaml"))
    for folder in sorted((ROOT / "conf").iterdir())
    if folder.is_dir()
}


def section(page, heading):
    """The text of a page below a heading, to the next one of the same or a higher level."""
    level = heading.partition(" ")[0]
    after = re.split(rf"^{re.escape(heading)}$", text_of(page), flags=re.M)
    assert len(after) == 2, f"{name_of(page)}: {heading}"
    return re.split(rf"^#{{1,{len(level)}}} ", after[1], flags=re.M)[0]


@pytest.mark.parametrize("group", OPTIONS)
def test_a_group_is_named_with_every_option_and_no_other(group):
    (row,) = re.findall(rf"^\| `{group}` \| (.*) \|$", section(README, "## Groups"), re.M)
    assert sorted(spans(row)) == OPTIONS[group]
    explained = re.findall(r"^\| `(\w+)` \| .", section(SETTINGS, f"### `{group}`"), re.M)
    assert sorted(explained) == OPTIONS[group]


@pytest.mark.parametrize("method", OPTIONS["method"])
def test_a_method_is_made_of_what_its_row_says(method):
    """The row of conf/README.md names the parts, and all of them but ``searcher=logits``."""
    table = section(SETTINGS, "### `method`")
    (row,) = re.findall(rf"^\| `{method}` \| .* \| (.*) \|$", table, re.M)
    if row.startswith("the same"):
        row += re.findall(r"^\| `darts` \| .* \| (.*) \|$", table, re.M)[0]
    said = [word for span in spans(row) for word in span.split() if "=" in word]
    made = asdict(composed([f"method={method}"]))
    alone = asdict(composed(["searcher=logits", "method=darts", *said]))
    for part in ("sampler", "learner", "searcher"):
        assert alone[part]["_target_"] == made[part]["_target_"], part
    for several in SEVERAL:
        assert list(alone[several]) == list(made[several]), several


# --- all pages


def links(page):
    return re.findall(r"\]\(([^)\s]+)\)", prose(page))


def slug(heading):
    """The anchor that a heading gets."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page):
    for link in links(page):
        place, _, anchor = link.partition("#")
        if "://" in link:
            continue
        target = (page.parent / place).resolve() if place else page
        assert target.exists() and target.is_relative_to(ROOT), link
        if anchor:
            headings = re.findall(r"^#+ (.*)$", prose(target), re.M)
            assert anchor in map(slug, headings), link


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_lines_of_commands_are_short(page):
    for language, text in blocks(page):
        if language or re.search(r"^(supernet|uv|pip|python|\.ci/run)\b", text, re.M):
            for line in text.splitlines():
                assert len(line) <= 100, line


@pytest.mark.parametrize("page", TODAY, ids=name_of)
def test_files_that_are_named_are_there(page):
    for span in spans(prose(page)):
        if re.fullmatch(rf"({'|'.join(map(re.escape, INSIDE))}|\.ci)/[a-z\d_./]+", span):
            assert (ROOT / span).exists(), span


@pytest.mark.parametrize(
    "command", sorted({command for page in PAGES for command in commands(page, "supernet")})
)
def test_commands_are_understood(command, tmp_path):
    understood(shlex.split(command.replace("RUN_DIR", str(tmp_path)))[1:])


def overrides_in(span):
    """The words of a span that is nothing but settings with their values; else none."""
    words = shlex.split(span) if "=" in span and "'" not in span else []
    setting = re.compile(r"[a-z][\w.]*=[^.\s]\S*|[a-z][\w.]*=\.\d+")
    own = ("from=", "trust=", "only_check=")  # words of the line that are no settings
    fits = all(setting.fullmatch(word) and not word.startswith(own) for word in words)
    return words if fits else []


@pytest.mark.parametrize("page", TODAY, ids=name_of)
def test_settings_with_values_are_understood(page):
    for span in sorted(set(spans(prose(page)))):
        if words := overrides_in(span):
            chosen = [word.partition("=")[0].split(".") for word in words]
            parts = [f"{k[0]}=[{k[1]}]" for k in chosen if k[0] in SEVERAL and len(k) > 1]
            own = any("_target_" in word or word.endswith("=mine") for word in words)
            if not own:
                understood([*parts, *words, *(NEEDED[w] for w in words if w in NEEDED)])


def known_settings():
    """The full names of all settings, those of parts included, and of what holds settings."""
    found = set(dotted(asdict(composed([]))))
    for group, options in OPTIONS.items():
        for option in options:
            node = yaml.safe_load((ROOT / "conf" / group / f"{option}.yaml").read_text("utf-8"))
            at = f"{group}.{option}" if group in SEVERAL else group
            if "_target_" in node or group == "data":
                found |= {f"{at}.{name}" for name in dotted(node)}
    return found


def dotted(value):
    """The full names of all keys of nested mappings."""
    for key, inner in value.items() if isinstance(value, dict) else ():
        yield key
        yield from (f"{key}.{name}" for name in dotted(inner))


UNDER = re.compile(r"under\s+`([\w.]+)`")  # where the pages say that results.json has something


def test_settings_without_values_exist():
    known, top = known_settings(), set(Config.__dataclass_fields__)
    for page in TODAY:
        text = UNDER.sub("", prose(page))
        for span in spans(text):
            first, dot, last = span.partition(".")
            is_file = last in ("py", "yaml", "json", "jsonl", "html")
            if dot and first in top and re.fullmatch(r"[a-z_.\d]+", last) and not is_file:
                assert span in known, f"{name_of(page)}: {span}"


@pytest.fixture(scope="module")
def keys_of_results(tmp_path_factory):
    """The keys of the results of a few small runs."""
    cwd = tmp_path_factory.mktemp("runs")
    small = [*TINY, "data.train_limit=160", "search.epochs=1", "retrain.epochs=1", "tracker=none"]
    judged = ["method=spos", "searcher.candidates=2", "shortlist.size=2", "memory=fit"]
    other = ["method=darts", "shortlist.size=1", "memory=check"]
    with pytest.MonkeyPatch.context() as patch:  # what a trial finds changes no key
        patch.setattr("supernet.cost.memory.tried", lambda settings, batch, stage: 2**24 * batch)
        first = finished("derive", *small, *judged, cwd=cwd)
        second = finished("search", f"from={first}", *other, cwd=cwd)
    third = finished("latency", *small, cwd=cwd)
    runs = (first, second, third)
    return {name for run in runs for name in dotted(read_json(run / "results.json"))}


@pytest.mark.parametrize(
    ("page", "key"),
    sorted({(name_of(page), key) for page in TODAY for key in UNDER.findall(prose(page))}),
)
def test_results_have_the_keys_that_a_page_names(page, key, keys_of_results):
    assert key in keys_of_results


# --- tools/README.md


def test_the_tools_are_those_that_there_are():
    rows = re.findall(r"^\| `(\w+\.py)` \|", text_of(TOOLS), re.M)
    assert sorted(rows) == sorted(path.name for path in TOOLS.parent.glob("*.py"))


def test_the_figures_of_the_benchmark_are_those_that_it_prints():
    (full,) = re.findall(r"^\| \(none\) \| (.*) \|$", text_of(TOOLS), re.M)
    assert {span for span in spans(full) if span not in OPTIONS["method"]} == REST
    (quick,) = re.findall(r"^\| `--quick` \| (.*) \|$", text_of(TOOLS), re.M)
    named = {span for span in spans(quick) if not span.startswith("_")}
    assert named and named <= RATIOS
    begin = "|".join({name.partition("_")[0] for name in RATIOS})
    figures = re.findall(rf"`((?:{begin})_\w*[a-z\d])`", prose(TOOLS))
    assert set(figures) <= RATIOS | REST


@pytest.mark.parametrize(
    "command",
    [
        command
        for page in PAGES
        for first in ("python", "uv run python")
        for command in commands(page, first)
    ],
)
def test_tools_have_the_options_that_are_given(command):
    script, *given = shlex.split(command.removeprefix("uv run "))[1:]
    code = Path(ROOT / script).read_text(encoding="utf-8")
    for word in given:
        assert not word.startswith("--") or f'"{word}"' in code, word
