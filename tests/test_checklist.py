"""The checklist: each practice is done by evidence in the folder, and without it, it is not.

The folders are made of one small run: a run, a study of it under several names, the same study by a
published table; beside them a simulation. What the small run has not is planted. Then each evidence
is taken away.
"""

import html
import itertools
import json
import shlex
import shutil
from copy import deepcopy
from dataclasses import asdict, replace

import numpy as np
import pytest
import yaml

from supernet.checklist import of_run as checks_of_run
from supernet.checklist import of_study
from supernet.checklist.answer import DOES_NOT_APPLY, DONE, NOT_DONE
from supernet.checklist.practices import PRACTICES, checklist
from supernet.checklist.record import Record, read
from supernet.cli.cells import line_of, study_cells
from supernet.cli.composition import composed
from supernet.cli.jobs import each
from supernet.cli.line import parse
from supernet.cli.options import Folders
from supernet.cli.parent import with_parent
from supernet.report.page import page
from tests.commands import TINY, finished, supernet

COMMIT = "0123456789" * 4
SETTINGS = ".hydra/config.yaml"


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    """The folder of a run that was searched with one version, and retrained with another."""
    cwd = tmp_path_factory.mktemp("first")
    few = ("search.epochs=1", "retrain.epochs=1", "retrain.seeds=1", "baseline.architectures=1")
    few += ("instrument=[gap]", "measure.every=1", "data.train_limit=160", "method=darts")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("supernet.run.environment", lambda *given: {"torch": "0.0"})
        searched = finished("search", *TINY, *few, "tracker=none", cwd=cwd)
    return finished("retrain", f"from={searched}", cwd=cwd)


@pytest.fixture(scope="module")
def complete(first, tmp_path_factory):
    """Kind of a folder -> a folder with all evidence that this kind can have."""
    place = tmp_path_factory.mktemp("complete")
    run = place / "run"
    shutil.copytree(first, run, ignore=shutil.ignore_patterns("checkpoints", "metrics"))
    change(run / "results.json", planted)
    change(run / SETTINGS, put("checklist.tuning", "nothing, 0 hours"))
    for section in ("growth", "rank", "judge", "tracker"):  # to read the rest is faster
        change(run / SETTINGS, drop(section))
    return {
        "run": run,
        "study": study_of(run, place / "study"),
        "published": published(study_of(run, place / "published")),
        "simulation": simulation(place),
    }


def planted(value):
    value["environment"] |= {"git_commit": COMMIT, "git_changes": False}
    del value["environments_before"]
    value["rank"] = {"architectures": 9, "against": {"published test_200": {}}}


def study_of(run, folder):
    """A study of two methods that differ in a modifier alone, with three seeds; of rivals, which
    differ in the searcher alone; and of shorter searches. Each is one part another than ``darts``.
    """
    results, runs = json.loads((run / "results.json").read_text()), []
    shutil.copytree(run / ".hydra", folder / ".hydra")
    beta = {"beta_decay": {"_target_": "supernet.modifiers.beta_decay.BetaDecay"}}
    kinds = {
        "darts": ({}, lambda value: None),
        "beta_darts": ({}, put("modifier", beta)),
        "random_search": ({"rival": True}, put("searcher", {"_target_": "supernet.x.Random"})),
        "early_stopping": ({"rival": True}, put("searcher", {"_target_": "supernet.x.Halving"})),
        "shorter": ({"base": "darts", "share": 0.5}, put("search.epochs", 9)),
    }
    for (entry, (kind, changed)), seed in itertools.product(kinds.items(), range(3)):
        name, method = f"{entry}-{seed}", kind.get("base", entry)
        shutil.copytree(run, folder / name)
        about = {"entry": entry, "method": method, "seed": seed}
        runs.append({"folder": name} | deepcopy(results) | about | kind)
        change(folder / name / SETTINGS, changed)
    rows = [{"method": name} for name in (*kinds, "random architectures")]
    value = {"schema": 1, "study": rows, "runs": runs, "found": []}
    (folder / "results.json").write_text(json.dumps(value))
    return folder


def published(folder):
    """The study, with accuracies that were looked up."""

    def looked_up(value):
        value["study"].append({"method": "random search, best of 100 by test_12"})
        value["runs"] = [run for run in value["runs"] if not run.get("rival")]
        value["found"] = [{"text": "x"} for _ in value["runs"]]
        for run in value["runs"]:
            del run["retrain"], run["random_baseline"], run["found_minus_random"]

    change(folder / "results.json", looked_up)
    change(folder / SETTINGS, put("study.published", "nb201.npz"))
    return folder


def simulation(cwd):
    """Two searchers on a table of all 32 networks of two widths."""
    texts = [":".join(map(str, widths)) for widths in itertools.product((8, 16), repeat=5)]
    figures = np.linspace(10, 90, len(texts))
    np.savez(cwd / "table.npz", arch=np.array(texts), test=figures, price=figures)
    columns = ("study.target=test", "study.ranked_by=test", "study.cost=price")
    searchers = ("study.searchers=[random,evolution]", "study.simulations=3", "study.draws=4")
    space = ("space=nats_size", "space.widths=[8,16]", "tracker=none", "jobs=1")
    tuned = "checklist.tuning=nothing"
    line = ("study", "study.table=table.npz", *columns, *searchers, *space, tuned)
    folder = finished(*line, cwd=cwd)
    change(folder / "results.json", put("environment.git_commit", COMMIT))
    change(folder / "results.json", put("environment.git_changes", False))
    return folder


# --- taking evidence away


def change(path, edit):
    """Changes what a file has recorded."""
    is_json = path.suffix == ".json"
    value = json.loads(path.read_text()) if is_json else yaml.safe_load(path.read_text())
    edit(value)
    path.write_text(json.dumps(value) if is_json else yaml.safe_dump(value))


def put(name, new):
    """Sets the entry of that full name."""

    def edit(value):
        *steps, last = name.split(".")
        for step in steps:
            value = value[int(step) if isinstance(value, list) else step]
        value[last] = new

    return edit


def drop(name):
    """Removes the entry of that full name."""

    def edit(value):
        *steps, last = name.split(".")
        for step in steps:
            value = value[int(step) if isinstance(value, list) else step]
        del value[last]

    return edit


def results(edit):
    return lambda folder: change(folder / "results.json", edit)


def settings(edit, run="."):
    return lambda folder: change(folder / run / SETTINGS, edit)


def lose(name):
    return lambda folder: (folder / name).unlink()


OTHER = [{"torch": "0.0"}]


def of_run(at="", run="."):
    """What is taken away from a run: its ``results`` begin with ``at``, its folder is ``run``."""
    no_commit = results(put(f"{at}environment.git_commit", None))
    changes = results(put(f"{at}environment.git_changes", True))
    no_environment, no_settings = results(drop(f"{at}environment")), lose(f"{run}/{SETTINGS}")
    code = [no_commit, changes, no_environment, no_settings]
    unfair = results(put(f"{at}retrain.init", "inherit"))
    no_random = results(drop(f"{at}random_baseline"))
    return {
        "training_code": [*code, settings(put("data.source._target_", "my.Source"), run)],
        "space_code": [
            *code,
            settings(put("space._target_", "my.Space"), run),
            settings(put("space.model", "/x/net.py:Net"), run),
        ],
        "training_settings": [
            no_settings,
            settings(drop("retrain"), run),
            results(drop(f"{at}seed")),
            results(drop(f"{at}retrain")),
        ],
        "method_code": [
            *code,
            settings(put("sampler._target_", "my.Sampler"), run),
            settings(put("modifier", {"mine": {"_target_": "my.Modifier"}}), run),
        ],
        "method_settings": [
            no_settings,
            settings(drop("sampler"), run),
            results(drop(f"{at}seed")),
            results(drop(f"{at}derive")),
        ],
        "same_benchmark": [no_settings, results(drop(f"{at}contents")), unfair],
        "confounders": [
            results(drop(f"{at}environment.processor")),
            results(put(f"{at}environments_before", OTHER)),
            results(drop(f"{at}total_seconds")),
        ],
        "same_protocol": [results(drop(f"{at}retrain"))],
        "over_time": [
            lose(f"{run}/metrics.jsonl"),
            results(drop(f"{at}search.instruments.gap")),
            settings(put("measure.every", 0), run),
        ],
        "random_search": [no_random, results(drop(f"{at}found_minus_random"))],
        "whole_time": [
            results(drop(f"{at}{part}"))
            for part in ("total_seconds", "search.seconds", "derive.seconds", "retrain.seconds")
        ],
        "details": [no_settings, no_environment, results(drop(f"{at}contents"))],
    }


def without_modifiers(study):
    """The rivals and the shorter searches still differ from the methods in one part alone."""
    for seed in range(3):
        settings(put("modifier", {}), f"beta_darts-{seed}")(study)


def each_of(*takes):
    return lambda folder: [take(folder) for take in takes]


def not_beside(entry, name, new):
    """The run of that entry with the seed 0 is put elsewhere, where it says nothing of the rest."""

    def edit(value):
        (run,) = (one for one in value["runs"] if (one["entry"], one["seed"]) == (entry, 0))
        run[name] = new

    return results(edit)


def alone(entry, take):
    """Other evidence of the first method is taken away, and that of ``entry`` with its seed."""
    elsewhere = {"seed": 7, "space": "darts", "data": "other"}
    return [each_of(take, not_beside(entry, *one)) for one in elsewhere.items()]


NOTHING_SAID = [settings(drop("checklist.tuning")), settings(put("checklist.tuning", " "))]
ONE_RUN = {name: taken[:1] for name, taken in of_run("runs.0.", "darts-0").items()}
TAKEN = {
    "run": of_run()
    | {
        "same_benchmark": [
            *of_run()["same_benchmark"],
            results(drop("random_baseline")),
            results(put("retrain.warm_start", {"weights": 1, "of": 2})),
        ],
        "same_protocol": [results(drop("retrain")), results(drop("random_baseline"))],
        "confounders": [*of_run()["confounders"], results(drop("environment"))],
        "tables": [results(drop("rank"))],
        "tuning": NOTHING_SAID,
    },
    "study": ONE_RUN
    | {
        "same_benchmark": [
            *ONE_RUN["same_benchmark"],
            settings(put("retrain.epochs", 99), "beta_darts-2"),
            settings(put("space.evaluation.channels", 99), "beta_darts-2"),
            settings(put("data.train_limit", None), "beta_darts-2"),
            results(put("runs.5.contents", {"data.source": "other"})),
        ],
        "confounders": [
            *ONE_RUN["confounders"],
            results(put("runs.5.environment.torch", "other")),
            results(put("runs.5.environment.processor", {"name": "other"})),
        ],
        "ablations": [without_modifiers],
        "same_protocol": [
            *ONE_RUN["same_protocol"],
            results(put("runs.5.seed", 7)),
            results(put("runs.5.retrain.accuracy", [0.5, 0.5])),
        ],
        "over_time": [
            lose("beta_darts-0/metrics.jsonl"),
            *alone("shorter", lose("darts-0/metrics.jsonl")),
        ],
        "random_search": alone("random_search", results(drop("runs.0.random_baseline"))),
        "several_runs": [results(put("runs.5.seed", 1))],
        "tuning": NOTHING_SAID,
        "details": [*ONE_RUN["details"], lose(SETTINGS)],
    },
    "published": {
        name: ONE_RUN[name] for name in ("space_code", "method_code", "method_settings", "details")
    }
    | {
        "same_benchmark": ONE_RUN["same_benchmark"],
        "confounders": ONE_RUN["confounders"],
        "ablations": [without_modifiers],
        "same_protocol": [results(put("runs.5.seed", 7)), results(drop("runs.0.derive"))],
        "over_time": alone("shorter", lose("darts-0/metrics.jsonl"))[:1],
        "random_search": [results(lambda value: value["study"].pop())],
        "several_runs": [results(put("runs.5.seed", 1))],
        "tables": [results(put("found", []))],
        "tuning": NOTHING_SAID,
        "whole_time": ONE_RUN["whole_time"],
    },
    "simulation": {
        "space_code": [
            results(put("environment.git_commit", None)),
            settings(put("space._target_", "my.Space")),
        ],
        "method_code": [
            results(put("environment.git_commit", None)),
            results(put("simulation.1.settings", {"_target_": "my.Searcher"})),
        ],
        "method_settings": [results(drop("simulation.1.settings")), results(drop("simulations"))],
        "same_benchmark": [results(drop("content"))],
        "same_protocol": [
            lose(SETTINGS),
            results(drop("simulation.1.evaluations")),
            *(
                each_of(results(put("simulation.1.evaluations.least", 3)), edit)
                for edit in (
                    results(put("simulation.1.minus_random.after", 4)),
                    results(put("simulation.1.minus_random", None)),
                    results(put("simulation.0.searcher", "tpe")),
                )
            ),
        ],
        "over_time": [results(drop("simulation.1.curve"))],
        "random_search": [results(put("simulation.0.searcher", "tpe"))],
        "several_runs": [results(put("simulations", 2))],
        "tables": [results(drop("table"))],
        "tuning": NOTHING_SAID,
        "whole_time": [settings(put("study.cost", None)), results(drop("simulation.1.cost"))],
        "details": [lose(SETTINGS), results(drop("environment")), results(drop("content"))],
    },
}
CASES = [
    pytest.param(kind, name, number, id=f"{kind}-{name}-{number}")
    for kind, names in TAKEN.items()
    for name, each_one in names.items()
    for number in range(len(each_one))
]
# what a folder of this kind can never show, and what is not asked of it
NEVER = {"run": {"ablations", "several_runs"}, "study": {"tables"}}
NOT_ASKED = {
    "published": {"training_code", "training_settings"},
    "simulation": {"training_code", "training_settings", "confounders", "ablations"},
}


def answers(folder):
    return {row["name"]: row for row in checklist(read(folder))}


@pytest.mark.parametrize("kind", TAKEN)
def test_a_complete_folder_has_every_practice_that_it_can_have(kind, complete):
    found = answers(complete[kind])
    assert list(found) == [practice.name for practice in PRACTICES]
    by_answer = {DONE: set(), NOT_DONE: set(), DOES_NOT_APPLY: set()}
    for name, row in found.items():
        assert row["why"] and (row["command"] is not None) == (row["answer"] == NOT_DONE)
        by_answer[row["answer"]].add(name)
    assert by_answer[NOT_DONE] == NEVER.get(kind, set())
    assert by_answer[DOES_NOT_APPLY] == NOT_ASKED.get(kind, set())
    assert by_answer[DONE] == set(TAKEN[kind])


@pytest.fixture(scope="module")
def said():
    """Every command that a practice has named which was not done, with its folder."""
    return {}


@pytest.mark.parametrize(("kind", "name", "number"), CASES)
def test_without_its_evidence_a_practice_is_not_done(kind, name, number, complete, said, tmp_path):
    folder = shutil.copytree(complete[kind], tmp_path / "folder")
    TAKEN[kind][name][number](folder)
    row = answers(folder)[name]
    assert row["answer"] == NOT_DONE, row["why"]
    assert row["command"].startswith("supernet ")
    said[row["command"]] = complete[kind]


def test_what_is_not_done_names_a_command_that_is_understood(said):
    """With the settings that the folder has recorded."""
    assert len(said) > 15
    assert any("study.ablate=" in command for command in said)
    for command, folder in said.items():
        there = command.replace("RUN_DIR", str(folder)).replace("STUDY_DIR", str(folder))
        line = parse(shlex.split(there)[1:])
        if line.overrides:
            line = with_parent(line)
            if (first := each(line)[0]) == line.overrides:  # each() composes those of a study
                composed(first)


def test_an_ablation_has_another_recipe_on_purpose(complete, tmp_path):
    folder = shutil.copytree(complete["study"], tmp_path / "folder")
    without_modifiers(folder)
    settings(put("retrain.drop_path", 0.5), "beta_darts-0")(folder)
    before = answers(folder)
    assert before["same_benchmark"]["answer"] == before["ablations"]["answer"] == NOT_DONE
    for name, value in {"entry": "darts without x", "base": "darts"}.items():
        results(put(f"runs.3.{name}", value))(folder)
    settings(put("architecture", "by hand"), "random_search-1")(folder)
    results(drop("runs.7.search"))(folder)  # what people have made is not searched
    after = answers(folder)
    searched = ("method_code", "method_settings", "whole_time")
    for name in ("same_benchmark", "random_search", "over_time", "ablations", *searched):
        assert after[name]["answer"] == DONE, after[name]["why"]
    assert "darts without x" in after["ablations"]["why"]


@pytest.mark.parametrize(
    ("method", "published"),
    [*((name, False) for name in ("darts", "petridish", "random_search")), ("spos", True)],
)
def test_the_command_for_an_ablation_makes_one(method, published, complete, tmp_path):
    """Of a study of any method, and of a run: the cells that it adds are an ablation."""
    table = ["study.published=x.npz"] if published else []
    line = [*TINY, f"study.methods=[{method}]", "study.rivals=false", "study.seeds=[0]", *table]
    found = asdict(composed([*line, f"method={method}"]))
    one = {"method": method, "entry": method, "space": "nb201", "data": "digits", "seed": 0}
    study = Record(tmp_path, {"study": [], "runs": [one]}, asdict(composed(line)))
    run = Record(tmp_path / "run", one, found, study=study)
    answer = of_study.ablations(replace(study, runs=(run,)))
    assert answer.answer == NOT_DONE
    *_, more = shlex.split(answer.command)
    cells = study_cells([*line, more], Folders())
    if not published:
        assert [cell for cell in cells if cell.trained_again]
        alone = shlex.split(checks_of_run.ablations(replace(run, study=None)).command)
        assert more in alone and f"study.methods=[{method}]" in alone
        return
    runs = [
        Record(tmp_path / cell.name, one | {"entry": cell.entry}, asdict(composed(own)))
        for cell in cells
        if (own := line_of([*line, more], cell))
    ]
    assert of_study.ablations(replace(study, runs=tuple(runs))).done


# --- what is recorded


def test_the_environments_of_all_jobs_are_recorded(first):
    """A run that goes on elsewhere does not have one environment."""
    found = json.loads((first / "results.json").read_text())
    assert [one["torch"] for one in found["environments_before"]] == ["0.0"]
    (row,) = [row for row in found["checklist"] if row["name"] == "confounders"]
    assert row["answer"] == NOT_DONE and "differs" in row["why"]


# --- the command and the page


def test_a_statement_is_recorded_and_shown_as_text(complete, tmp_path):
    folder = shutil.copytree(complete["run"], tmp_path / "a folder")
    change(folder / SETTINGS, put("checklist.tuning", None))
    before = supernet("checklist", f"from={folder}", cwd=tmp_path)
    assert (before.code, before.err) == (0, "")
    command = f"supernet checklist from='{folder}' checklist.tuning="
    assert command in before.out
    text = "lr, <b>3 runs</b>, [20 min] & more"
    after = supernet("checklist", f"from={folder}", f"checklist.tuning={text}", cwd=tmp_path)
    assert (after.code, after.err) == (0, "") and command not in after.out
    for practice in PRACTICES:
        assert practice.text in after.out
    assert f"{text} (checklist.tuning)" in after.out
    assert "16 practices: 14 done, 2 not done, 0 does not apply" in after.out
    assert text in supernet("checklist", f"from={folder}", cwd=tmp_path).out
    rows = json.loads((folder / "results.json").read_text())["checklist"]
    shown = page("a run", {"checklist": rows}, [], {})
    assert html.escape(f"{text} (checklist.tuning)") in shown and text not in shown
    for practice in PRACTICES:
        assert html.escape(practice.text) in shown


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ((), "needs the folder of a run"),
        (("from=nowhere",), "not the folder of a run or of a study"),
        (("from=run", "seed=1"), "seed=1: supernet checklist shows what is in"),
        (("from=run", "-m", "checklist.code=a,b"), "leave out -m"),
        (("from=damaged",), "results.json is damaged (retrain"),
    ],
    ids=lambda given: " ".join(given) if isinstance(given, tuple) else "",
)
def test_a_wrong_line_is_one_line(line, said, complete, tmp_path):
    for name in ("run", "damaged"):
        shutil.copytree(complete["run"], tmp_path / name)
    change(tmp_path / "damaged" / "results.json", put("retrain", "x"))
    found = supernet("checklist", *line, cwd=tmp_path)
    assert (found.code, found.err.count("\n")) == (2, 1) and said in found.err
