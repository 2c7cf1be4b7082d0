"""Every file of a finished run is damaged in every way that its shape has. What reads it either
says in one line what is wrong, or works with what is there; it never fails in another way.
"""

import contextlib
import copy
import itertools
import json
import re
import shutil

import pytest
import torch
import yaml

from supernet.cli.composition import composed
from supernet.cli.jobs import kept_folders
from supernet.cli.line import CommandLine
from supernet.cli.options import Folders
from supernet.cli.recorded import finish, folders_of, overrides_of
from supernet.errors import UserError
from supernet.mixture import Architecture
from supernet.report import series, values
from supernet.report.summary import rank_tables, summary_table
from supernet.runs.derive import shortlist
from supernet.runs.folder import State
from supernet.runs.judge import Judge
from supernet.runs.judging import kept_judgements
from supernet.runs.memory import as_planned
from supernet.runs.results import results
from supernet.runs.search import search_stage, searches, start_of
from supernet.runs.setup import Setup
from supernet.runs.training import finished_retrainings, retrainings, stage_of
from supernet.runs.work import Work
from supernet.shapes import Settings, read
from supernet.track.interface import Tracker
from supernet.track.jsonlines import read_rows
from supernet.track.merged import Merged
from supernet.track.wandb import WandB
from supernet.train.loop import run_stage
from tests.commands import TINY, finished

RUN = [*TINY, "tracker=none", "method=spos", "searcher.candidates=3", "search.epochs=1"]
RUN += ["shortlist.size=2", "retrain.epochs=1", "retrain.seeds=1", "baseline.architectures=1"]
RUN += ["rank.architectures=4", "rank.scratch=3"]

# --- the ways in which a value can be wrong

WRONG = [None, True, -1, 1.5, "../x", [None], {"x": 1}]
NOT_FINITE = ["NaN", "Infinity", "-Infinity", "1e999", "9" * 5000]
TEXTS = [b"", b"\0", b"\xff\xfe", b"{", b"[" * 100_000, b"{}", b"[]", b"null", b"1", b'"x"']
TEXTS += [
    b"- &a [*a]\n",
    b"!!python/object/apply:os.system [exit]\n",
    b"a: b: c",
    b"\t- x",
    b"{}\nx\n",
]


def nodes(value, path=()):
    """Every place in a value. Of a list, the first entry stands for all."""
    yield path
    if isinstance(value, dict):
        for name, part in value.items():
            yield from nodes(part, (*path, name))
    elif isinstance(value, list) and value:
        yield from nodes(value[0], (*path, 0))


def like(path):
    """The same for places that are alike: the keys of ``retrain/0`` and ``retrain/1``."""
    return tuple(
        re.sub(r"^(search|retrain|random|candidate|rank)/\d+$", r"\1/", str(p)) for p in path
    )


def damaged(value):
    """Every damage of a value: at each place another value, nothing, or something more."""
    seen = set()
    for path in nodes(value):
        if like(path) in seen:
            continue
        seen.add(like(path))
        for wrong in WRONG:
            yield (
                f"{path}={wrong!r}",
                changed(value, path, lambda parent, key, w=wrong: setitem(parent, key, w)),
            )
        if path:
            yield f"{path} gone", changed(value, path, lambda parent, key: parent.__delitem__(key))
        if isinstance(at(value, path), dict):
            yield (
                f"{path} more",
                changed(value, (*path, "more"), lambda parent, key: setitem(parent, key, 1)),
            )


def setitem(parent, key, value):
    parent[key] = value


def at(value, path):
    for key in path:
        value = value[key]
    return value


def changed(value, path, change):
    whole = {"": copy.deepcopy(value)}
    *before, last = ("", *path)
    change(at(whole, before), last)
    return whole[""]


# --- a finished run, and what reads its files


@pytest.fixture(scope="module")
def finished_run(tmp_path_factory):
    place = tmp_path_factory.mktemp("damage")
    run = finished(*RUN, cwd=place)
    return finished("rank", f"from={run}", cwd=place)


@pytest.fixture(scope="module")
def setup(finished_run):
    return Setup(composed(overrides_of(finished_run)))


@pytest.fixture
def run(finished_run, tmp_path, monkeypatch):
    """A copy of the small files of the run. What is said about the machine takes long to find."""
    monkeypatch.setattr("supernet.runs.results.environment", lambda *given: {"python": "3"})
    ignored = shutil.ignore_patterns("*.pt", "export", "*.html")
    return shutil.copytree(finished_run, tmp_path / "run", ignore=ignored)


def read_state(folder, setup):
    """What the commands do with ``state.json``, but for the drawings."""
    state = State.read(folder)
    work = Work(as_planned(setup, state.memory), state)
    start_of(work)
    if work.result(Judge()) is not None:
        shortlist(work)
    if "derive" in state.stages:
        found = Architecture.from_dict(state.stages["derive"]["result"]["architecture"])
        [work.key(job) for job in retrainings(work, found)]
    if "retrain/0" in state.stages:
        finished_retrainings(folder)
    found = results(setup, state)
    json.dumps(found, allow_nan=False)
    summary_table(found)
    if "rank" in found:
        rank_tables(found["rank"])
        [values.ranking(one) for one in found["rank"]["against"].values()]
    for table in (
        *(values.facts, values.compared, values.trained, values.derived, values.fidelity),
        *(values.decisions, values.latency, values.others, values.guards),
        *(values.measuring_time, values.images_each, values.front, values.shortlist, values.time),
    ):
        table(found)


def read_metrics(folder, setup):
    rows = read_rows(folder / "metrics.jsonl")
    Merged(folder, Tracker()).begin()
    for kind in ("search", "derive", "retrain", "random"):
        for stage in series.stages(rows, kind):
            for name in series.names_in(stage):
                series.thinned(series.curve(stage, name))
    values.trainings(rows)


def read_overrides(folder, setup):
    overrides = overrides_of(folder)
    folders = kept_folders(overrides, folder, CommandLine(), Folders())
    composed(overrides, folders)


def read_config(folder, setup):
    config = read(folder / ".hydra" / "config.yaml", Settings)
    assert isinstance(config.get("judge", {}).get("cost", "params"), str)
    values.settings(config)


def read_folders(folder, setup):
    folders_of(folder, True)


def read_next(folder, setup):
    (folder / "aside" / ".hydra").mkdir(parents=True, exist_ok=True)
    shutil.copy(folder / ".hydra" / "next.json", folder / "aside" / ".hydra")
    finish(folder / "aside")


def read_judged(folder, setup):
    state = State(folder)
    with kept_judgements(Work(setup, state), "KEY") as kept:
        sorted((judgement.accuracy, judgement.loss) for judgement in kept.known.values())
        assert kept.seconds >= 0


def read_job(folder, setup):
    tracker = WandB()
    tracker._folder = folder
    for about in tracker._kept().get("artifacts", {}).values():
        assert all((folder / path).resolve().is_relative_to(folder) for path in about["paths"])


READERS = {
    "state.json": read_state,
    "metrics.jsonl": read_metrics,
    ".hydra/overrides.yaml": read_overrides,
    ".hydra/config.yaml": read_config,
    ".hydra/folders.yaml": read_folders,
    ".hydra/next.json": read_next,
    "checkpoints/judgements-KEY.json": read_judged,
    "wandb/job.json": read_job,
}


def content_of(run, name):
    """The sound content of a file. What this run has none of is made here."""
    path = run / name
    if name == "wandb/job.json":
        export = {"kind": "model", "paths": ["export/network.py"]}
        return {"id": "12ab34cd", "artifacts": {"export": export}, "summary": {"accuracy": 0.5}}
    if name == ".hydra/folders.yaml":
        return [str(run)]
    if name == ".hydra/next.json":
        return {"config.yaml": "seed: 1", "folders.yaml": None, "overrides.yaml": "[seed=1]"}
    if name == "checkpoints/judgements-KEY.json":
        (path,) = [p for p in run.glob("checkpoints/judgements-*.json")][:1]
        whole = json.loads(path.read_text())
        return whole | {"judged": whole["judged"][:2]}
    if name == ".hydra/config.yaml":
        whole = yaml.safe_load(path.read_text())
        return {key: whole[key] for key in ("name", "seed", "judge", "modifier")}
    if name == "metrics.jsonl":
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        return [row for row in rows if row["stage"] in ("retrain/0", "derive")][:2] + rows[:1]
    return (
        json.loads(path.read_text()) if path.suffix == ".json" else yaml.safe_load(path.read_text())
    )


def text_of(name, value):
    if name.endswith("jsonl"):
        rows = value if isinstance(value, list) else [value]
        return "".join(json.dumps(row) + "\n" for row in rows)
    return json.dumps(value) if name.endswith(".json") else yaml.safe_dump(value)


def outcome(reader, folder, setup):
    """``""`` if a damaged file is read or refused in one line, else the fault."""
    try:
        reader(folder, setup)
    except UserError as error:
        return "" if "\n" not in str(error) else f"several lines: {error}"
    except Exception as error:
        return f"{type(error).__name__}: {str(error)[:150]}"
    return ""


def faults_of(name, run, setup):
    """The faults of all damages of one file, and how many damages there are."""
    path, reader, sound = run / name, READERS[name], content_of(run, name)
    path.parent.mkdir(exist_ok=True)
    path.write_text(text_of(name, sound))
    reader(run, setup)
    texts = [(what, text_of(name, value).encode()) for what, value in damaged(sound)]
    whole = text_of(name, sound).encode()
    texts += [(f"cut at {n}", whole[:n]) for n in range(0, len(whole), max(1, len(whole) // 25))]
    texts += [(repr(text[:20]), text) for text in TEXTS]
    for number in re.finditer(rb"\d\.\d+", whole):
        texts += [
            (f"{where}={bad}", whole[: number.start()] + bad.encode() + whole[number.end() :])
            for where, bad in itertools.product([number.start()], NOT_FINITE)
        ][:5]
        if number.start() > len(whole) // 3:
            break
    faults = []
    for what, text in texts:
        path.write_bytes(text)
        if fault := outcome(reader, run, setup):
            faults.append(f"{what}: {fault}")
    return faults, len(texts)


@pytest.mark.parametrize("name", READERS)
def test_a_damaged_file_is_one_line(name, run, setup):
    faults, tried = faults_of(name, run, setup)
    assert tried > 30
    assert not faults, f"{len(faults)} of {tried}: " + "; ".join(faults[:10])


# --- checkpoints


FEW = [None, True, -1, 1.5, 10**9, "x", [], {"x": 1}]
META = ("step", "sums", "counts", "seconds", "peak_memory_bytes", "parts", "state", "tracker")


@pytest.fixture(scope="module")
def work(finished_run, setup, tmp_path_factory):
    """A run whose checkpoints may be written."""
    folder = tmp_path_factory.mktemp("checkpoints") / "run"
    shutil.copytree(finished_run, folder, ignore=shutil.ignore_patterns("export", "*.html"))
    return Work(setup, State.read(folder))


def damaged_checkpoints(content):
    """Another value, or nothing, for each entry, each part of the state, and what is in a part."""
    places = [("key",), *((name,) for name in META), ("sums", "loss"), ("counts", "loss")]
    places += [("tracker", "bytes"), ("parts", "x")]
    for name, part in content["state"].items():
        places.append(("state", name))
        if isinstance(part, dict):
            places += [("state", name, key) for key in list(part)[:1]]
    for number, path in enumerate(places):
        for wrong in FEW if path[0] != "state" else (FEW[number % 8],):
            yield f"{path}={wrong!r}", changed_tree(content, path, wrong)
        yield f"{path} gone", changed_tree(content, path, GONE)
        with contextlib.suppress(KeyError, TypeError, IndexError):
            if isinstance(value := at(content, path), torch.Tensor):
                yield f"{path} of another shape", changed_tree(content, path, torch.zeros(2, 3))
                yield f"{path} as text", changed_tree(content, path, str(value))


GONE = object()


def changed_tree(tree, path, value):
    """The tree with another value at a place. What does not lie on the way there is shared."""
    first, *rest = path
    copied = dict(tree)
    if rest:
        copied[first] = changed_tree(copied.get(first, {}), rest, value)
    elif value is GONE:
        copied.pop(first, None)
    else:
        copied[first] = value
    return copied


def resumed(work, stage, name):
    """Goes on with a stage from its checkpoint, as the command does."""
    with work.rows(name) as rows:
        run_stage(stage, work.checkpoints, rows)


@pytest.mark.parametrize("kind", ["search/0", "retrain/0"])
def test_a_damaged_checkpoint_is_one_line(kind, work):
    """Nothing but one line comes of it, and never a stage that is said to be finished but is not:
    the network that such a stage would give is that of the sound checkpoint.
    """
    path = work.checkpoints.path(kind)
    content = torch.load(path)
    key, fresh = content["key"], fresh_stage(work, kind)
    whole, faults, tried = fresh.steps, [], 0
    for what, damage in damaged_checkpoints(content):
        tried += 1
        try:
            saved = damage
            if not what.startswith("('state', "):  # else the file is sound, and reading it is slow
                torch.save(damage, path)
                saved = work.checkpoints.load(kind, key)
            stage = copy.deepcopy(fresh, {id(work.setup.data): work.setup.data})
            work.checkpoints.restore(stage, saved)
            if saved["step"] != whole:
                faults.append(f"{what}: at step {saved['step']} of {whole}")
        except UserError as error:
            if "\n" in str(error):
                faults.append(f"{what}: several lines")
        except Exception as error:
            faults.append(f"{what}: {type(error).__name__}: {str(error)[:100]}")
    torch.save(content, path)
    assert tried > 100
    assert not faults, f"{len(faults)} of {tried}: " + "; ".join(faults[:10])


@pytest.mark.parametrize("kind", ["search/0", "retrain/0"])
def test_a_state_of_an_optimizer_of_another_shape_is_one_line(kind, work):
    """A finished stage makes no step in which torch would find it."""
    content, tried = torch.load(work.checkpoints.path(kind)), 0
    for path in tensors_of_optimizers(content):
        tried += 1
        wrong = changed_tree(content, path, at(content, path).repeat_interleave(2, 0))
        with pytest.raises(UserError, match=r"does not fit.*of an optimiser") as caught:
            work.checkpoints.restore(fresh_stage(work, kind), wrong)
        assert "\n" not in str(caught.value)
    assert tried > 3


def tensors_of_optimizers(content):
    """The places of some of the tensors that optimisers keep for each weight."""
    for path, optimizer in found_optimizers(content["state"], ("state",)):
        for number, state in list(optimizer["state"].items())[:5]:
            for name, value in state.items():
                if isinstance(value, torch.Tensor) and value.ndim:
                    yield (*path, "state", number, name)


def found_optimizers(tree, path):
    if isinstance(tree, dict):
        if "param_groups" in tree:
            yield path, tree
        else:
            for name, part in tree.items():
                yield from found_optimizers(part, (*path, name))


def fresh_stage(work, kind):
    if kind == "search/0":
        return search_stage(work.setup, work.budget, key=work.key(searches(work.setup)[0]))
    (job,) = retrainings(
        work, Architecture.from_dict(work.state.stages["derive"]["result"]["architecture"])
    )
    return stage_of(work, job)


@pytest.mark.parametrize("step", [10**9, -1, 1, "x", None, 2.0])
def test_a_step_that_is_not_that_of_the_state_never_ends_a_stage(step, work):
    path = work.checkpoints.path("search/0")
    content = torch.load(path)
    torch.save(content | {"step": step}, path)
    try:
        with pytest.raises(UserError, match=r"checkpoint .*search-0\.pt (is damaged|does not fit)"):
            resumed(work, fresh_stage(work, "search/0"), "search/0")
    finally:
        torch.save(content, path)


def test_damaged_results_of_a_run_stop_no_command_and_are_written_anew(finished_run, tmp_path):
    folder = shutil.copytree(finished_run, tmp_path / "copy")
    before = json.loads((folder / "results.json").read_text())
    (folder / "results.json").write_text('{"study": [')
    for command in ("retrain", "report"):
        assert finished(command, f"from={folder}", cwd=tmp_path) == folder
    assert json.loads((folder / "results.json").read_text())["retrain"] == before["retrain"]
