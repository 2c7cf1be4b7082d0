"""``supernet reproduce``: what is not the same here is named, and a repeated run is judged."""

import copy
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
import torch

from supernet.cli.composition import composed
from supernet.cli.line import parse
from supernet.cli.recorded import overrides_of
from supernet.cli.sweep import again
from supernet.environment import environment
from supernet.files import read_json, write_json
from supernet.runs.compare import DIFFERS, SAME, WITHIN, compared, judged_by_study, summary
from supernet.runs.conditions import (
    FOR_PEOPLE,
    NOT_RECORDED,
    different,
    expectation,
    flat,
    of_environments,
)
from supernet.runs.folder import State
from supernet.runs.setup import Setup
from tests.commands import TINY, finished, supernet

RUN = [*TINY, "data.train_limit=160", "tracker=none", "method=darts", "search.epochs=1"]
RUN += ["retrain.epochs=1", "retrain.seeds=3", "baseline.architectures=1", "threads=1"]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("reproduce")


@pytest.fixture(scope="module")
def original(place):
    return finished("retrain", *RUN, "hydra.run.dir=original", cwd=place)


@pytest.fixture(scope="module")
def repeated(original, place):
    """What the command printed, and the folder that it made."""
    outcome = supernet("reproduce", f"from={original}", cwd=place)
    assert (outcome.code, outcome.err) == (0, "")
    return outcome, outcome.folder


@pytest.fixture
def copied(original, tmp_path):
    """A copy of the original, to plant something in."""
    return Path(shutil.copytree(original, tmp_path / "copy"))


@pytest.fixture
def here():
    return environment(torch.device("cpu"), 1)


def plant(folder, change):
    state = read_json(folder / "state.json")
    change(state)
    write_json(folder / "state.json", state)


def move(state, index, by):
    state["stages"][f"retrain/{index}"]["result"]["accuracy"] += by


def test_here_and_with_the_same_settings_the_bits_are_the_same(original, repeated):
    outcome, folder = repeated
    assert "the same bits are expected\n" in outcome.out
    assert f"\n{SAME}\n" in outcome.out
    found = read_json(folder / "results.json")["reproduction"]
    assert (found["of"], found["verdict"], found["conditions"]) == (str(original), SAME, [])
    logged = (original / "metrics.jsonl").read_text().splitlines()
    weights = list((original / "checkpoints").glob("*.pt"))
    assert found["figures"] > sum(len(json.loads(row)) - 2 for row in logged) + len(weights)
    before, now = (read_json(one / "results.json")["retrain"] for one in (original, folder))
    assert found["accuracies"][1]["accuracy"] == before["accuracy"] == now["accuracy"]
    assert folder != original and State.read(folder).parent is None  # nothing was taken over
    page = (folder / "report.html").read_text()
    assert "Reproduction" in page and str(original) in page and SAME in page


def test_a_reproduction_that_was_stopped_goes_on(original, repeated, tmp_path):
    folder = Path(shutil.copytree(repeated[1], tmp_path / "stopped"))
    before = read_json(folder / "state.json")["stages"]
    plant(folder, lambda state: [state["stages"].pop(name) for name in ("retrain/2", "random/0")])
    for name in ("retrain-2", "random-0"):
        (folder / "checkpoints" / f"{name}.pt").unlink()
        (folder / "metrics" / f"{name}.jsonl").unlink()
    line = parse(["reproduce", f"from={original}", "jobs=1", "hydra.run.dir=elsewhere"])
    words = again(line, folder).split()[1:]
    assert words == ["reproduce", "jobs=1", f"from={original}", f"hydra.run.dir={folder}"]
    outcome = supernet(*words, cwd=tmp_path)
    assert (outcome.code, outcome.err, outcome.folder) == (0, "", folder)
    assert f"\n{SAME}\n" in outcome.out
    after = read_json(folder / "state.json")["stages"]
    kept = [name for name in before if before[name] == after[name]]  # with the same seconds
    assert set(before) - set(kept) == {"retrain/2", "random/0"}


# --- what is not the same


def test_every_entry_of_the_environment_that_differs_is_named(here):
    here["limits"] = {"ONEDNN_MAX_CPU_ISA": "AVX2"}
    assert list(of_environments([here], here)) == []
    assert expectation([]) == "the same bits are expected"
    for name, value in flat(here):
        recorded = copy.deepcopy(here)
        node, (*above, last) = recorded, name.split(".")
        for step in above:
            node = node[step]
        node[last] = f"{value} other"
        (found,) = of_environments([recorded], here)
        assert found.name == name and "other" in found.recorded and found.here != found.recorded
        assert found.decides == (name not in FOR_PEOPLE)
        assert (name in expectation([found])) == found.decides
    assert {"processor.features", "kernels.march", "threads", "code"} <= dict(flat(here)).keys()


def test_only_the_features_that_one_side_has_are_shown(here):
    recorded = copy.deepcopy(here)
    recorded["processor"]["features"] = "avx amx_tile"
    here["processor"]["features"] = "avx avx512_f"
    (found,) = of_environments([recorded], here)
    assert (found.recorded, found.here) == ("also amx_tile", "also avx512_f")


def test_a_run_that_went_on_elsewhere_differs_from_both_places(here):
    (found,) = of_environments([here | {"numpy": "1.0"}, here], here)
    assert (found.name, found.recorded) == ("numpy", f"1.0 and {here['numpy']}")


def test_what_is_not_recorded_is_said(here):
    """As in a run before the processor and the code were recorded: then the commit decides."""
    old = {k: v for k, v in here.items() if k not in ("processor", "code", "git_commit")}
    found = list(of_environments([old | {"git_commit": "old"}], here))
    unknown = [one.name for one in found if one.recorded == NOT_RECORDED]
    assert {"processor.name", "processor.features", "code"} <= set(unknown)
    assert [(one.name, one.decides) for one in found if one.recorded == "old"] == [
        ("git_commit", True)
    ]
    assert f"not recorded: {', '.join(unknown)}" in expectation(found)


def test_other_data_and_other_code_are_named(copied):
    def change(state):
        state["contents"]["data.source"]["content"] = "0" * 64
        state["environments"].append(state["environments"][0] | {"code": "planted"})

    plant(copied, change)
    found = different(Setup(composed(overrides_of(copied))), State.read(copied))
    assert [one.name for one in found] == ["code", "data.source"]
    assert found[1].recorded == "0" * 16


def test_a_check_alone_runs_nothing(copied, tmp_path):
    """The run is of a version that lacked a setting, and settings that change nothing are given."""

    def change(state):
        state["environments"][0].update(torch="1.0", wandb="0.1")
        state["plan"] = "of another version"

    plant(copied, change)
    words = ["only_check=true", "threads=2", "jobs=1"]
    outcome = supernet("reproduce", f"from={copied}", *words, cwd=tmp_path)
    assert (outcome.code, outcome.err) == (0, "")
    assert f"the bits may differ: torch (1.0, here {torch.__version__.partition('+')[0]})" in (
        outcome.out
    )
    assert "threads (1, here 2); settings (of another version, here" in outcome.out
    assert "wandb" in outcome.out and list(tmp_path.iterdir()) == [copied]


# --- the verdict


@pytest.mark.parametrize("by", [0.0, 1e-9, 0.02, 0.04, 0.1])
def test_the_verdict_by_the_interval_of_the_seeds(original, by):
    """Recorded are 0.5, 0.52 and 0.54; scipy says how far their interval reaches."""
    recorded, here = (copy.deepcopy(State.read(original)) for _ in range(2))
    accuracies = np.array([0.5, 0.52, 0.54])
    for state, moved in ((recorded, 0.0), (here, by)):
        for index, accuracy in enumerate(accuracies + moved):
            state.stages[f"retrain/{index}"]["result"]["accuracy"] = float(accuracy)
    mean, error = accuracies.mean(), scipy.stats.sem(accuracies)
    low, high = scipy.stats.t.interval(0.95, 2, loc=mean, scale=error)
    expected = SAME if not by else WITHIN if low <= mean + by <= high else DIFFERS
    found = compared(recorded, here)
    assert found["verdict"] == expected
    assert found["different"] == 3 * bool(by)
    assert found["accuracies"][0]["ci95"] == pytest.approx([low, high])
    if by:
        assert found["first_difference"]["where"] == "retrain/0, accuracy"


def test_fewer_than_three_seeds_have_no_interval(original):
    recorded, here = (copy.deepcopy(State.read(original)) for _ in range(2))
    for state in (recorded, here):
        del state.stages["retrain/2"]
    here.stages["retrain/0"]["result"]["accuracy"] += 1e-9
    found = compared(recorded, here)
    assert (found["verdict"], found["why"]) == (
        DIFFERS,
        "fewer than three seeds have no interval",
    )


def test_weights_and_logged_figures_are_compared(original, copied):
    path = copied / "checkpoints" / "retrain-1.pt"
    saved = torch.load(path, weights_only=True)
    next(iter(saved["state"]["network"].values())).view(-1)[0] += 1e-6
    torch.save(saved, path)
    rows = (copied / "metrics.jsonl").read_text().splitlines()
    row = json.loads(rows[0])
    row["loss"] += 1e-9
    (copied / "metrics.jsonl").write_text("\n".join([json.dumps(row), *rows[1:]]) + "\n")
    found = compared(State.read(original), State.read(copied))
    assert found["different"] == 2  # one figure and one checkpoint
    where = f"{row['stage']}, step {row['step']}, loss"
    assert found["first_difference"]["where"] == where
    path.unlink()  # a checkpoint that is gone is not compared
    assert compared(State.read(original), State.read(copied))["different"] == 1


def test_the_exit_code_says_that_it_differs(copied, repeated, tmp_path):
    """What was recorded is planted, so that the finished reproduction is compared with it anew."""
    plant(copied, lambda state: [move(state, index, 0.5) for index in range(3)])
    folder = shutil.copytree(repeated[1], tmp_path / "repeated")
    outcome = supernet("reproduce", f"from={copied}", f"hydra.run.dir={folder}", cwd=tmp_path)
    assert (outcome.code, outcome.err) == (1, "")
    assert f"\n{DIFFERS}: a mean is outside" in outcome.out
    assert "the first is retrain/0, accuracy" in outcome.out
    assert read_json(folder / "results.json")["reproduction"]["verdict"] == DIFFERS


RECORDED = [0.4, 0.5, 0.6]  # of three seeds; the second one gives the same bits again


def within(recorded, here):
    """Whether each mean lies within the interval of the other side, by scipy."""
    sides = [np.array(side) for side in (recorded, here)]
    ends = [
        scipy.stats.t.interval(0.95, len(side) - 1, loc=side.mean(), scale=scipy.stats.sem(side))
        for side in sides
    ]
    means = [side.mean() for side in sides]
    return all(low <= mean <= high for (low, high), mean in zip(ends, means[::-1], strict=True))


@pytest.mark.parametrize("by", [0.0, 0.1, 0.39])  # the last is outside
@pytest.mark.parametrize("seeds", [2, 3])
def test_a_run_of_a_study_is_judged_by_the_seeds_of_its_entry(seeds, by):
    """Each run has one training, so that it alone has no interval."""
    here = [0.6 + by, 0.5, 0.4 + by]
    pairs = {f"darts-{seed}": (RECORDED[seed], here[seed]) for seed in range(seeds)}
    pairs |= {f"spos-{seed}": (0.5, 0.9) for seed in range(2)}
    found = {
        name: {
            "verdict": SAME if one[0] == one[1] else DIFFERS,
            "why": "of its own",
            "accuracies": [summary([accuracy]) for accuracy in one],
        }
        for name, one in pairs.items()
    }
    judged = judged_by_study(found, {name: name.partition("-")[0] for name in found})
    assert judged.keys() == found.keys()
    for name, one in judged.items():
        if seeds == 2 or not name.startswith("darts") or found[name]["verdict"] == SAME:
            assert one == found[name]
        else:
            assert one["verdict"] == (WITHIN if within(RECORDED, here) else DIFFERS)
            assert one["why"] != "of its own"


def test_a_study_that_comes_out_within_its_seeds_is_reproduced(
    original, repeated, tmp_path, monkeypatch
):
    """Each run but one differs alone: its own trainings lie close together."""
    monkeypatch.setattr("supernet.run.page_of", lambda folder: folder)
    folder, here = tmp_path / "study", [0.6, 0.5, 0.4]
    assert within(RECORDED, here)
    shutil.copytree(original / ".hydra", folder / ".hydra")
    names = [f"darts-{seed}" for seed in range(3)]
    sides = ((folder, original, RECORDED), (tmp_path / "here", repeated[1], here))
    for whole, run, means in sides:
        for name, mean in zip(names, means, strict=True):
            shutil.copytree(run, whole / name)
            plant(whole / name, lambda state, mean=mean: set_accuracies(state, mean))
    runs = [{"folder": name, "entry": "darts"} for name in names]
    write_json(folder / "results.json", {"schema": 1, "study": [], "runs": runs, "found": []})
    outcome = supernet("reproduce", f"from={folder}", "hydra.run.dir=here", cwd=tmp_path)
    assert (outcome.code, outcome.err) == (0, "")
    found = [read_json(tmp_path / "here" / name / "results.json") for name in names]
    verdicts = [one["reproduction"]["verdict"] for one in found]
    assert verdicts == [WITHIN, SAME, WITHIN]
    assert "of 3 runs of the study" in found[0]["reproduction"]["why"]


def set_accuracies(state, mean):
    for index in range(3):
        state["stages"][f"retrain/{index}"]["result"]["accuracy"] = mean + 0.001 * (index - 1)


# --- what is refused


def pop(name):
    return lambda folder: plant(folder, lambda state: state["stages"].pop(name))


def empty(folder):
    plant(folder, lambda state: state.update(stages={}))


def began_elsewhere(state):
    searched = state["stages"]["search/0"]["result"]
    searched["warm_start"] = copy.deepcopy(searched)
    state["parent"] = "OTHER"


def without_record(folder):
    plant(folder, lambda state: state.pop("environments"))
    (folder / "results.json").unlink()


# what is planted in the folder, further words -> what the line says
REFUSED = {
    "no folder of a run": (lambda folder: (folder / "state.json").unlink(), [], "not the folder"),
    "no settings": (lambda folder: shutil.rmtree(folder / ".hydra"), [], "overrides.yaml"),
    "no environment": (without_record, [], "no such file"),
    "nothing computed": (empty, [], "nothing was computed"),
    "unfinished": (pop("retrain/2"), [], "not finished (retrain/2); first: supernet retrain from="),
    "unfinished search": (pop("search/0"), [], "not finished (search/0)"),
    "a chain": (lambda f: plant(f, began_elsewhere), [], "began from the weights of OTHER"),
    "other settings": (lambda folder: None, ["retrain.epochs=2"], "leave out the settings"),
    "another method": (lambda folder: None, ["method=spos"], "leave out the settings"),
    "a sweep": (lambda folder: None, ["-m", "seed=1,2"], "leave out -m"),
    "not true or false": (lambda folder: None, ["only_check=maybe"], "true or false"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_be_repeated_is_one_line(what, copied, tmp_path):
    change, words, said = REFUSED[what]
    change(copied)
    outcome = supernet("reproduce", f"from={copied}", *words, cwd=tmp_path)
    assert outcome.code == 2 and said in outcome.err
    assert outcome.err.count("\n") == 1
    assert list(tmp_path.iterdir()) == [copied]


def test_a_folder_that_holds_another_run_is_refused(copied, tmp_path):
    outcome = supernet("reproduce", f"from={copied}", f"hydra.run.dir={copied}", cwd=tmp_path)
    assert outcome.code == 2 and "holds another run" in outcome.err
    assert State.read(copied).reproduction is None


@pytest.mark.parametrize("words", [["reproduce"], ["run", "only_check=true"]])
def test_a_line_that_makes_no_sense_is_refused(words, tmp_path):
    outcome = supernet(*words, cwd=tmp_path)
    assert outcome.code == 2 and outcome.err.count("\n") == 1
