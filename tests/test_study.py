"""Studies: a comparison computed by hand, and a study that is stopped, resumed, inspected and
extended.
"""

import json
import re
import signal
from dataclasses import asdict, replace
from html import unescape
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from supernet.cli.cells import line_of, study_cells
from supernet.cli.composition import composed
from supernet.cli.jobs import goes_on
from supernet.cli.line import parse
from supernet.cli.options import Folders
from supernet.cli.parent import with_parent
from supernet.config import Config, StudySettings, typed
from supernet.cost.budget import Budget
from supernet.report import comparison
from supernet.run import plan_of
from supernet.runs.compare import SAME
from supernet.runs.executor import Here
from supernet.runs.folder import State
from supernet.runs.setup import Setup
from supernet.searchers.searcher import search
from supernet.searchers.successive_halving import SuccessiveHalving
from supernet.shapes import flat
from supernet.spaces.cells import Geometry
from supernet.spaces.nb201 import NB201
from supernet.study import run as study
from supernet.study.cells import NO_SUPERNET, Cell, cells_of
from supernet.study.comparison import CHANCE, Outcome, compare
from supernet.study.cost import candidates
from supernet.study.published import Lookup
from supernet.track.console import Progress
from supernet.train.loop import StopRequest
from supernet.train.retrain import RetrainStage
from supernet.tricks import TRICKS
from tests.commands import TINY, finished, supernet, wandb_records
from tests.searchers.test_searchers import Judge, begun
from tests.tasks import task_of

OPTIONS = NB201.groups[0].options
STUDY = [
    "study",
    *TINY,
    "tracker=none",
    "retrain.seeds=1",
    "baseline.architectures=1",
    "study.methods=[darts,spos]",
    "study.rivals=false",
]
METHODS = [Cell(method, seed, {}, method=True) for method in ("darts", "spos") for seed in (0, 1)]
SECONDS = {"spos": 40.0}  # of the searches of a method, unless 10


def result(method, seed, mean, chance):
    return {
        "method": method,
        "seed": seed,
        "space": "nb201",
        "data": "digits",
        "search": {"seconds": 10.0},
        "derive": {"seconds": 1.0},
        "architecture": {"text": NB201.hand_made},
        "retrain": {"mean": mean, "accuracy": [mean], "seconds": 1.0},
        "random_baseline": {"accuracy": chance},
    }


def outcomes(accuracies, seeds=None, **about):
    """What one method found with the seeds 0, 1, ..."""
    method = about.pop("method", "darts")
    return [
        Outcome(
            about.get("entry", method),
            seed,
            about.get("space", "nb201"),
            "digits",
            accuracy,
            result(method, seed, accuracy, [0.1 + 0.2 * seed, 0.2 + 0.2 * seed]),
            about.get("base"),
        )
        for seed, accuracy in zip(seeds or range(9), accuracies, strict=False)
    ]


def test_a_comparison_by_hand():
    """Each method has two seeds, which are too few for an interval. The quantile of Student's t is
    3.182 for three degrees of freedom.
    """
    found = compare([*outcomes([0.5, 0.7]), *outcomes([0.7, 0.7], method="spos")])
    darts, spos, chance = found
    assert (darts["method"], darts["runs"], darts["mean"]) == ("darts", 2, pytest.approx(0.6))
    assert darts["ci95"] is None and darts["accuracies"] == [0.5, 0.7]
    assert darts["search_seconds"] == 22.0 and darts["total_seconds"] == [12.0, 12.0]
    assert spos["ci95"] is None and spos["against"]["p_holm"] is spos["against"]["shown"] is None
    assert spos["against"]["difference"] == pytest.approx(0.1)
    assert chance["runs"] == 4  # the same four whatever the method: counted once
    assert chance["mean"] == pytest.approx(0.25)
    assert chance["ci95"] == pytest.approx(
        [0.25 - 3.182446 * 0.0645497, 0.25 + 3.182446 * 0.0645497], abs=1e-5
    )
    # 0.5 is 233.3% above 0.15, and 0.7 is 100% above 0.35
    assert darts["relative_improvement"]["mean"] == pytest.approx((233.3333 + 100) / 2)


@pytest.mark.parametrize(
    ("settings", "words"),
    [((4, 2, 3), "7 trainings, 1 of all epochs"), ((9, 3, 2), "12 trainings, 3 of all epochs")],
)
def test_a_search_from_scratch_says_how_many_trainings_it_took(settings, words):
    """Four architectures, the best two of them anew, and the best one of these; or nine and three.
    One that trains a supernet has no such number.
    """
    searcher, judge = begun(SuccessiveHalving(*settings), NB201(*[Geometry(4, 1)] * 2)), Judge()
    found = search(searcher, judge)
    (one, *_) = outcomes([0.5], method="early_stopping")
    one.results["derive"] |= {"judgements": len(found.told), "evaluated": len(found.judged)}
    assert comparison.name_of(compare([one])[0]) == "early_stopping"
    del one.results["search"]
    assert comparison.name_of(compare([one])[0]) == f"early_stopping ({words})"
    assert int(words.split()[0]) == len(judge.asked)


def test_rows_are_compared_with_the_same_seeds_of_their_group():
    """A method with the first one of its space, and an ablation with its own method. Differences
    over the seeds that both have: 2, 3 and 4 points, and 10, 10 and 13.
    """
    found = compare(
        [
            *outcomes([0.5, 0.6, 0.7]),
            *outcomes([0.9, 0.74, 0.63, 0.52], seeds=[7, 2, 1, 0], method="spos"),
            *outcomes([0.42, 0.53, 0.61], method="spos", entry="spos less", base="spos"),
            *outcomes([0.2, 0.2, 0.2], method="spos", space="darts"),
        ]
    )
    rows = {(row["space"], row["method"]): row for row in found}
    spos, less = (rows["nb201", name]["against"] for name in ("spos", "spos less"))
    assert (spos["method"], spos["pairs"]) == ("darts", 3)
    assert spos["difference"] == pytest.approx(0.03) and spos["d"] == pytest.approx(3)
    assert less["method"] == "spos" and less["difference"] == pytest.approx(-0.11)
    assert rows["nb201", "darts"]["against"] is rows["darts", "spos"]["against"] is None
    # Holm: the smallest of three p-values is multiplied by 3; the third is that of chance
    ps = {name: rows["nb201", name]["against"] for name in ("spos", "spos less", CHANCE)}
    least = min(ps.values(), key=lambda one: one["p"])
    assert least["p_holm"] == pytest.approx(3 * least["p"])
    assert all(one["shown"] == (one["p_holm"] < 0.05) for one in ps.values())


@pytest.mark.parametrize(
    ("searcher", "seconds", "expected"),
    [
        # a candidate takes half of a training of 10 s, because it has half of the images
        ("random", 52, 10),
        ("random", 1, 1),
        # 9 for 2 of 18 epochs, 3 for 6, 1 for 18: 3 trainings of 5 s; a tenth would cost more
        ("[successive_halving,9]", 15, 9),
    ],
)
def test_rivals_try_as_many_as_the_methods_could_have_trained(searcher, seconds, expected):
    kind, *rest = searcher.strip("[]").split(",")
    rounds = ["searcher.rounds=3"] if rest else []
    chosen = [f"searcher={kind}", "method=spos", "retrain.epochs=18", *rounds]
    config = composed([*TINY, *chosen])
    results = result("darts", 0, 0.5, [0.1]) | {"search": {"seconds": seconds - 1.0}}
    results["retrain"] = {"seconds": 20.0, "accuracy": [0.5, 0.5]}
    assert candidates(config, [results]) == expected


def test_a_study_by_a_published_table(tmp_path):
    """The accuracy in the table is the number of convolutions, so that every expected figure is
    known.
    """
    space = NB201(Geometry(4, 1), Geometry(4, 1))
    texts, convolutions = written(tmp_path / "table.npz")
    arguments = [
        "study",
        *TINY,
        "tracker=none",
        "study.methods=[darts,gdas]",
        "study.seeds=[0,1]",
        "search.epochs=1",
        "study.draws=9",
    ]
    folder = finished(*arguments, "search.epochs=1", "study.published=table.npz", cwd=tmp_path)
    assert not list(folder.glob("*/export"))  # nothing was retrained
    results = json.loads((folder / "results.json").read_text())
    darts, gdas, chance, largest, mean, median = results["study"]
    for method in (darts, gdas):
        found = [one for one in results["found"] if one["method"] == method["method"]]
        assert [one["seed"] for one in found] == [0, 1]
        shares = [space.decode(one["text"]).choices[0][1] for one in found]
        counts = [
            sum(option in ("nor_conv_1x1", "nor_conv_3x3") for option in share) for share in shares
        ]
        assert method["mean"] == pytest.approx(sum(counts) / 20)
        assert method["parameter_free"] == pytest.approx(1 - sum(counts) / 12)
        assert method["regret"] == pytest.approx(0.6 - method["mean"])
        # two of five options are convolutions, so that an architecture has 6 · 0.4 in the mean
        better = 100 * (method["mean"] / 0.24 - 1)
        assert method["relative_improvement"]["mean"] == pytest.approx(better)
    assert (mean["mean"], mean["runs"]) == (pytest.approx(0.24), 1)
    assert (darts["against"]["method"], gdas["against"]["method"]) == (chance["method"], "darts")
    assert darts["against"]["difference"] == pytest.approx(darts["mean"] - chance["mean"])
    # the two columns order the architectures in opposite ways
    assert chance["runs"] == 1000 and chance["mean"] < 0.15
    assert (largest["mean"], median["mean"]) == (pytest.approx(0.6), pytest.approx(0.2))
    budget = Budget(space, task_of(10, 1, (8, 8)))
    params = np.array([budget.costs(space.decode(text))["params"] for text in texts])
    limit = int(np.median(params))
    one = ("study.methods=[darts]", "study.seeds=[0]", "study.published=table.npz")
    limited = finished(*arguments, *one, f"budget.params={limit}", cwd=tmp_path)
    rows = json.loads((limited / "results.json").read_text())["study"]
    within = convolutions[params <= limit] / 10
    for row in rows:  # the regret is that within the limit
        assert row["regret"] == pytest.approx(within.max() - row["mean"])
    assert rows[-1]["mean"] == pytest.approx(np.median(within))
    again = supernet("study", f"from={folder}", "study.target=nonsense", cwd=tmp_path)
    assert (again.code, again.err.count("\n")) == (
        2,
        1,
    ) and "column unknown 'nonsense'" in again.err
    other = supernet(
        *arguments, "space=darts", "study.published=table.npz", "hydra.run.dir=other", cwd=tmp_path
    )
    assert (other.code, other.err.count("\n")) == (
        2,
        1,
    ) and "it must hold every architecture of the space darts" in other.err
    assert not list((tmp_path / "other").rglob("search-*.pt"))  # said before anything was trained


def written(path):
    """Writes a table in which the accuracy of a cell is the number of its convolutions, and a
    column that orders the cells in the opposite way. Returns the cells and these numbers.
    """
    texts = ["+".join(nodes) for nodes in product(*(node(slots) for slots in (1, 2, 3)))]
    convolutions = np.array([text.count("conv") for text in texts])
    columns = {"test_200": 10.0 * convolutions, "test_12": -convolutions}
    np.savez(path, arch=np.array(texts), **columns)
    return texts, convolutions


def test_published_accuracies_are_compared_with_numbers_that_are_known(tmp_path):
    """The first method with the mean of the random searches, by the test of one sample."""
    written(tmp_path / "table.npz")
    table = f"study.published={tmp_path}/table.npz"
    line = [*TINY, "method=darts", table, "study.ranked_by=test_200", "study.draws=3"]
    lookup = Lookup(Setup(composed(line)))
    accuracies = {"darts": [0.3, 0.4, 0.6], "spos": [0.4, 0.6, 0.6]}
    looked_up = [
        replace(one, results={"search": {"seconds": 1.0}})
        for method, each in accuracies.items()
        for one in outcomes(each, method=method)
    ]
    darts, spos, chance, *_ = lookup.completed(compare(looked_up))
    wanted = [
        stats.ttest_1samp(accuracies["darts"], chance["mean"]).pvalue,
        stats.ttest_rel(accuracies["spos"], accuracies["darts"]).pvalue,
    ]
    assert [row["against"]["p"] for row in (darts, spos)] == pytest.approx(wanted)
    twice = min(1, 2 * min(wanted))
    holm = [twice, max(twice, *wanted)]
    assert sorted(row["against"]["p_holm"] for row in (darts, spos)) == pytest.approx(sorted(holm))
    percents = 100 * (np.array(accuracies["darts"]) / 0.24 - 1)
    ends = stats.t.interval(0.95, 2, percents.mean(), stats.sem(percents))
    assert darts["relative_improvement"]["mean"] == pytest.approx(percents.mean())
    assert darts["relative_improvement"]["ci95"] == pytest.approx(ends)


def test_shorter_searches_show_accuracy_over_time(tmp_path):
    """By a published table of the number of convolutions."""
    written(tmp_path / "table.npz")
    line = ["study", *TINY, "tracker=none", "study.published=table.npz", "study.draws=2"]
    line += ["study.ranked_by=test_200", "study.methods=[darts]", "study.seeds=[0,1]"]
    folder = finished(*line, "search.epochs=4", "study.shares=[0.25,0.5]", cwd=tmp_path)
    results = json.loads((folder / "results.json").read_text())
    whole, quarter, half = results["study"][:3]
    assert (quarter["method"], half["method"]) == (
        "darts with 0.25 of its search",
        "darts with 0.5 of its search",
    )
    assert (whole["share"], quarter["share"], half["share"]) == (None, 0.25, 0.5)
    assert [one["search"]["epochs"] for one in results["runs"]] == [4, 4, 1, 1, 2, 2]
    assert quarter["against"]["method"] == half["against"]["method"] == "darts"
    assert quarter["search_seconds"] < whole["search_seconds"]
    page = (folder / "report.html").read_text()
    assert 'id="cost-0-over-time-darts"' in page and "A line joins the means" in page
    time = [line for line in results["checklist"] if line["name"] == "over_time"]
    assert time[0]["answer"] == "done" and "darts with 0.5 of its search" in time[0]["why"]

    for wrong, said in (
        (["search.epochs=1"], "darts searches for 1 epochs"),
        (["study.methods=[random_search]"], "random_search trains no supernet"),
    ):
        other = supernet(*line, "study.shares=[0.9]", *wrong, cwd=tmp_path)
        assert (other.code, other.err.count("\n")) == (2, 1) and said in other.err


def test_a_shorter_search_waits_for_nothing_and_is_trained_by_the_same_recipe():
    cells = cells_of(
        StudySettings(methods=["darts"], seeds=[0], shares=[0.5], ablate=["epochs"], rivals=False),
        lambda cell: composed([*TINY, "search.epochs=4"]),
    )
    assert [(cell.name, cell.waits) for cell in cells] == [
        ("darts-0", False),
        ("darts-with-0.5-of-its-search-0", False),
        ("darts-with-half-epochs-0", True),
    ]
    shorter = cells[1]
    assert shorter.changes["search.epochs"] == "2"
    assert not [name for name in shorter.changes if name.startswith("retrain")]


def test_each_space_and_data_set_is_a_group_of_its_own(tmp_path, monkeypatch):
    monkeypatch.setattr(study, "page_of", lambda folder: folder)
    line = [*TINY, "tracker=none", "study.methods=[darts,spos]", "study.seeds=[0]"]
    line += ["study.spaces=[nb201,nats_size]", "study.data=[digits,mnist]"]
    groups = [*product(("nb201", "nats_size"), ("digits", "mnist"))]
    cells = study_cells(line, Folders())
    for space, data in groups:
        made = "hand_made" if space == "nb201" else "largest"
        entries = [cell.entry for cell in cells if cell.group == (space, data)]
        assert entries == ["darts", "spos", made, "random_search", "early_stopping"]
    assert len(cells) == 5 * len(groups)
    methods = [cell for cell in cells if cell.method]
    performed = pretended(tmp_path, monkeypatch, Here(), *line[2:], cells=methods)
    assert [run.name for run in performed] == [
        f"{space}-{data}-{method}-0" for space, data in groups for method in ("darts", "spos")
    ]
    sections = {
        option: asdict(composed([*TINY, f"{section}={option}"]))[section]
        for section, some in (("space", ("nb201", "nats_size")), ("data", ("digits", "mnist")))
        for option in some
    }
    for run in performed:
        space, data, method, _ = run.name.split("-")
        assert run.settings["method"] == method
        assert run.settings["space"] == sections[space]
        assert run.settings["data"] == sections[data]
    rows = json.loads((tmp_path / "results.json").read_text())["study"]
    expected = [(*group, name) for group in groups for name in ("darts", "spos", CHANCE)]
    assert [(row["space"], row["data"], row["method"]) for row in rows] == expected
    assert all(row["against"]["pairs"] == row["runs"] == 1 for row in rows[1::3])


# trick -> its setting, its value, and what is left without it
ON = {
    "crop": ("data.augment.crop_padding", 2, 0),
    "flip": ("data.augment.flip", True, False),
    "cutout": ("data.augment.cutout", 3, 0),
    "drop_path": ("retrain.drop_path", 0.2, 0.0),
    "auxiliary": ("retrain.auxiliary_weight", 0.4, 0.0),
    "label_smoothing": ("retrain.label_smoothing", 0.1, 0.0),
    "weight_decay": ("retrain.weight_decay", 0.0003, 0.0),
    "warmup": ("retrain.warmup_epochs", 0.5, 0.0),
    "average": ("retrain.ema_decay", 0.9, 0.0),
    "epochs": ("retrain.epochs", 5, 2),
    "channels": ("space.evaluation.channels", 8, 4),
}


def test_each_trick_is_left_out_by_its_setting_alone():
    assert TRICKS.keys() == ON.keys()
    whole = [f"{setting}={str(value).lower()}" for setting, value, _ in ON.values()]
    line = [*TINY, *whole, "study.methods=[darts]", "study.seeds=[0]", "study.rivals=false"]
    line.append(f"study.ablate=[{','.join(ON)}]")
    with_all, *without = study_cells(line, Folders())
    settings = dict(flat(asdict(composed(line_of(line, with_all)))))
    for cell, (name, (setting, value, off)) in zip(without, ON.items(), strict=True):
        config = asdict(composed(line_of(line, cell)))
        found = dict(flat(config))
        assert {one for one in found if found[one] != settings[one]} == {setting}
        assert (settings[setting], found[setting]) == (value, off)
        if not off:  # a run that does not use a trick has no such ablation
            assert TRICKS[name].changes(config) == {}


def node(slots):
    """All texts of an NB201 node with this number of incoming edges."""
    return [
        "|" + "|".join(f"{o}~{i}" for i, o in enumerate(options)) + "|"
        for options in product(OPTIONS, repeat=slots)
    ]


def test_a_study_from_start_to_end(tmp_path, monkeypatch):
    step = RetrainStage.step

    def interrupted(stage, index):
        signal.raise_signal(signal.SIGTERM)
        return step(stage, index)

    def stopped_in_retraining(*arguments):
        with monkeypatch.context() as patch:
            patch.setattr(RetrainStage, "step", interrupted)
            outcome = supernet(*arguments, cwd=tmp_path)
        assert (outcome.code, outcome.err) == (143, "")
        return Path(re.search(r"go on with: supernet study from=(.*)", outcome.out).group(1))

    folder = stopped_in_retraining(*STUDY, "study.seeds=[0]")
    assert [path.parent.name for path in folder.glob("*/state.json")] == ["darts-0"]

    (folder / ".results.json.abc.tmp").write_text("half a file")  # of a writer that was killed
    assert finished("study", f"from={folder}", cwd=tmp_path) == folder
    assert not list(folder.rglob("*.tmp"))
    results = json.loads((folder / "results.json").read_text())
    assert [row["method"] for row in results["study"]] == ["darts", "spos", "random architectures"]
    darts, spos = results["runs"]
    assert (darts["method"], spos["method"], darts["seed"], spos["seed"]) == ("darts", "spos", 0, 0)
    assert darts["random_baseline"]["accuracy"] == spos["random_baseline"]["accuracy"]
    assert (folder / "spos-0" / "export" / "model.onnx").exists()

    # Each of its runs is a run like any other.
    before = (folder / "darts-0" / "state.json").read_bytes()
    assert finished("retrain", f"from={folder}/darts-0", cwd=tmp_path) == folder / "darts-0"
    assert (folder / "darts-0" / "state.json").read_bytes() == before
    for lost in ("export", "retrain"):  # steps of a run, not of a study
        outcome = supernet(lost, f"from={folder}", cwd=tmp_path)
        assert (outcome.code, outcome.err.count("\n")) == (2, 1)
        assert "darts-0, spos-0" in outcome.err
    mixed = supernet("study", f"from={folder}/darts-0", cwd=tmp_path)
    assert (mixed.code, mixed.err.count("\n")) == (2, 1)

    # Its page can be written anew, and all of its runs can be repeated.
    page = (folder / "report.html").read_text()
    (folder / "report.html").unlink()
    assert finished("report", f"from={folder}", cwd=tmp_path) == folder
    assert (folder / "report.html").read_text() == page
    repeated = supernet("reproduce", f"from={folder}", "hydra.run.dir=again", cwd=tmp_path)
    assert (repeated.code, repeated.err) == (0, "")
    for name in ("darts-0", "spos-0"):
        state = json.loads((tmp_path / "again" / name / "results.json").read_text())
        assert state["reproduction"]["verdict"] == SAME
    for command in ("report", "reproduce"):
        other = supernet(command, f"from={folder}", "search.epochs=7", cwd=tmp_path)
        assert other.code == 2 and "search.epochs=7" in other.err and "leave it out" in other.err

    # Fewer methods go on in the folder, other training in a new one that reuses the searches.
    assert finished("study", f"from={folder}", "study.methods=[spos]", cwd=tmp_path) == folder
    other = stopped_in_retraining(
        "study", f"from={folder}", "study.methods=[spos]", "retrain.epochs=1"
    )
    assert other != folder
    again = json.loads((other / "spos-0" / "results.json").read_text())
    assert again["parent"] == str(folder / "spos-0")
    assert again["search"] == spos["search"]
    assert "retrain" not in again

    # Published accuracies are another truth, and other columns are as well: in new folders, which
    # reuse the searches. Trainings in such a folder count nothing.
    written(tmp_path / "table.npz")
    kept = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    table = (f"from={folder}", "study.published=table.npz")
    found = finished("study", *table, "study.methods=[darts]", "study.draws=2", cwd=tmp_path)
    assert found != folder and {path: path.read_bytes() for path in kept} == kept
    shown = (found / "results.json").read_text()
    finished("retrain", f"from={found}/darts-0", cwd=tmp_path)
    assert finished("study", f"from={found}", cwd=tmp_path) == found
    for results in map(json.loads, (shown, (found / "results.json").read_text())):
        (run,) = results["runs"]
        assert run["search"] == darts["search"] and not run.keys() & {"retrain", "random_baseline"}
        assert not {CHANCE} & {row["method"] for row in results["study"]}
        assert "study.published" in (found / ".hydra" / "overrides.yaml").read_text()
    for changed in ("study.target=test_12", "study.draws=3", "study.published=null"):
        line = with_parent(parse(["study", f"from={found}", changed]))
        assert not goes_on(line, found)
    mixed = supernet("study", *table, f"hydra.run.dir={folder}", cwd=tmp_path)
    assert mixed.code == 2 and "whose accuracies come from elsewhere" in mixed.err


@pytest.mark.parametrize(
    ("budget", "at_once"), [("budget.latency_ms=9", False), ("budget.params=1e6", True)]
)
def test_runs_that_measure_latencies_are_not_run_at_once(budget, at_once, tmp_path, monkeypatch):
    """Beside other runs, a latency is that of a busy machine."""

    class Two(Here):
        workers, asked = 2, 0

        def run(self, work, jobs, *how):
            self.asked += len(jobs)
            super().run(work, jobs, *how)

    executor = Two()
    pretended(tmp_path, monkeypatch, executor, "tracker=none", budget)
    assert executor.asked == 4 * at_once


def test_wandb_has_the_tables_of_the_page(tmp_path, monkeypatch):
    pretended(tmp_path, monkeypatch, Here(), "tracker=wandb")
    page = unescape((tmp_path / "report.html").read_text()).lower()
    records = wandb_records(tmp_path)
    (run,) = [record["run"] for record in records if record["type"] == "run"]
    assert run["display_name"] == tmp_path.name
    found = sorted((tmp_path / "wandb").glob("offline-run-*/files/media/table/*.json"))
    kept = [json.loads(path.read_text()) for path in found]
    logged = [record["artifact"]["type"] for record in records if record["type"] == "artifact"]
    assert logged == ["run_table"] * len(kept) and len(kept) == 4
    rows = [row for one in kept for row in one["data"]]
    for text in [text for row in rows for text in row]:
        assert text.lower() in page
    for seed, accuracy in ((0, "50.00%"), (1, "60.00%")):
        assert ["nb201", "digits", "spos", str(seed), accuracy, "43.0"] in rows
    names = ("group", "practice", "answer", "why", "command")
    practices = json.loads((tmp_path / "results.json").read_text())["checklist"]
    assert practices
    for one in practices:
        assert [one[name] or "" for name in names] in rows


def test_how_much_a_rival_may_try_follows_the_methods_of_the_study(tmp_path, monkeypatch):
    """A search takes 11 or 41 s, and a candidate half a training of 2 s: 11 candidates, or 26. What
    is decided stays as long as the same runs decide it.
    """
    monkeypatch.setattr(study, "page_of", lambda folder: folder)
    changes = {"method": "random_search", "searcher": "random"} | NO_SUPERNET
    rival = Cell("random_search", 0, changes, equal_cost=True)
    folder, path = tmp_path / rival.name, tmp_path / "candidates.json"
    steps = (
        (METHODS[:1], 11, ["darts-0"]),  # the cells, how many, and by whose seconds
        (METHODS[:1], 11, ["darts-0"]),
        (METHODS[2::-2], 26, ["darts-0", "spos-0"]),
    )
    for number, (methods, count, of) in enumerate(steps):
        if number == 1:  # on a slower machine
            monkeypatch.setitem(SECONDS, "darts", 100.0)
            (folder / "kept").touch()
        if number == 2:
            monkeypatch.setitem(SECONDS, "darts", 10.0)
        performed = pretended(tmp_path, monkeypatch, Here(), cells=[*methods, rival])
        assert performed[-1].settings["searcher"]["candidates"] == count
        assert json.loads(path.read_text()) == {"random_search": {"candidates": count, "of": of}}
        assert (folder / "kept").exists() == (number == 1)  # a run of another number begins again


def pretended(folder, monkeypatch, executor, *overrides, cells=METHODS):
    """A study of two methods with two seeds, or of other ``cells``, whose runs compute nothing.
    Their state has the plan of their settings. Returns the runs that were performed.
    """
    performed = []

    def computed(run, work):
        performed.append(run)
        state = State(work.folder / run.name)
        state.plan = plan_of(Setup(typed(Config, run.settings, "")))
        state.write()
        method, _, seed = run.name.rpartition("-")
        found = result(method, int(seed), 0.5 + 0.1 * int(seed), [0.1])
        found["search"]["seconds"] = SECONDS.get(method, 10.0)
        found["retrain"]["seconds"] = 2.0
        return {"results": found}

    def prepare(some):
        for cell in some:
            (folder / cell.name).mkdir(exist_ok=True)
        return {cell.name: composed(line_of([*TINY, *overrides], cell)) for cell in some}

    monkeypatch.setattr(study.StudyRun, "compute", computed)
    study.run(cells, folder, executor, Progress(quiet=True), StopRequest(), prepare)
    return performed
