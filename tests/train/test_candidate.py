"""Candidates: judged only on held-out images, ended early only when that is safe, and resumed to
the same bits.
"""

import signal
from dataclasses import replace

import pytest
import torch

from supernet.data import Augment, ImageData, TensorImages, evaluation_batches
from supernet.errors import UserError
from supernet.evaluate.accuracy import Judgement, evaluate
from supernet.evaluate.curves import hopeless, upper_bound
from supernet.randomness import Streams
from supernet.run import Run
from supernet.runs.candidate import shortlist_splits
from supernet.searchers.random import Random
from supernet.train.candidate import CandidateStage
from supernet.train.loop import Stopped, run_stage
from supernet.train.settings import RetrainSettings, ShortlistSettings
from tests.compare import identical
from tests.train.stopping import after, stopped_and_resumed, straight
from tests.variants import SPACES

EPOCHS = 10
PERFECT = [1.0] * EPOCHS


@pytest.fixture
def candidate(data):
    """A function that makes a candidate with few weights and a small learning rate: ten epochs of
    two steps on 16 images, and 8 held-out images.
    """

    def make(finished=(), ema_decay=0.9, **shortlist) -> CandidateStage:
        space, streams = SPACES["nb201"](), Streams(0)
        with streams.initialising("network"):
            network = space.standalone(space.random(streams.host("architecture")), data.task)
        return CandidateStage(
            "candidate/0",
            network,
            data,
            torch.arange(16),
            RetrainSettings(
                epochs=EPOCHS, batch_size=8, lr=0.001, drop_path=0.2, ema_decay=ema_decay
            ),
            augment=Augment(crop_padding=1),
            streams=streams,
            key="k",
            held_out=torch.arange(16, 24),
            shortlist=ShortlistSettings(**{"first_look": 0.6, "confidence": 0.1} | shortlist),
            finished=list(finished),
        )

    return make


def test_the_curve_is_the_accuracy_on_the_held_out_images(candidate, data):
    """The accuracy is that of the network ``trained()``, after each epoch. Judging does not change
    the training.
    """
    stage, unseen = candidate(), candidate()
    rows = straight(stage)
    accuracies = []
    for index in range(unseen.steps):
        unseen.step(index)
        if index % 2:
            batches = evaluation_batches(data.train, torch.arange(16, 24), 3, data.mean, data.std)
            accuracies.append(evaluate(unseen.trained().eval(), batches, data.task).accuracy)
            unseen.network.train()
    assert (
        stage.curve
        == accuracies
        == [row["held_out_accuracy"] for _, _, row in rows if "held_out_accuracy" in row]
    )
    assert identical(stage.network.state_dict(), unseen.network.state_dict())
    assert not stage.ended and len(stage.curve) == EPOCHS


def test_it_is_ended_as_soon_as_the_rule_says_so_and_no_sooner(candidate):
    whole, stage = candidate(), candidate([PERFECT])
    run_stage(whole)
    cost = run_stage(stage)
    says = [n for n in range(6, EPOCHS) if hopeless(whole.curve[:n], EPOCHS, 0.1, [PERFECT])]
    assert stage.ended and cost.steps == 2 * says[0] and stage.curve == whole.curve[: says[0]]
    for settings in ({"first_look": 1.0}, {"confidence": 0.999999}):
        patient = candidate([PERFECT], **settings)
        run_stage(patient)
        assert patient.ended == (
            "confidence" in settings
            and any(
                hopeless(whole.curve[:n], EPOCHS, settings["confidence"], [PERFECT])
                for n in range(6, EPOCHS)
            )
        )


@pytest.mark.parametrize("at", [3, 9, 11])
def test_stopped_anywhere_and_resumed_it_is_ended_at_the_same_step(candidate, tmp_path, at):
    whole = candidate([PERFECT])
    rows = straight(whole)
    assert whole.ended and at < whole.steps
    resumed, resumed_rows = stopped_and_resumed(lambda: candidate([PERFECT]), at, tmp_path)
    assert identical(whole.state_dict(), resumed.state_dict()) and resumed.ended
    assert resumed_rows == rows


# --- in a run

CELLS = [  # the second has no way through and cannot learn anything
    "|nor_conv_3x3~0|+|none~0|none~1|+|skip_connect~0|nor_conv_1x1~1|none~2|",
    "|none~0|+|none~0|none~1|+|none~0|none~1|none~2|",
    "|nor_conv_1x1~0|+|none~0|none~1|+|none~0|nor_conv_3x3~1|none~2|",
]
SETTINGS = {
    "searcher": {"_target_": "supernet.searchers.random.Random", "candidates": 3},
    "shortlist": {"size": 3, "held_out": 0.25, "first_look": 0.4, "confidence": 0.8},
    "retrain": {"epochs": 10, "batch_size": 6, "seeds": 1, "auxiliary_weight": 0.0, "lr": 0.05},
    "baseline": {"architectures": 1},
}


@pytest.fixture
def make(make_run, data, monkeypatch):
    """A function that makes a run on data from which networks can learn. Its searcher finds CELLS,
    in this order of inherited accuracy.
    """
    noise = torch.Generator().manual_seed(0)
    labels = torch.arange(30) % 3
    pixels = (
        80 * labels[:, None, None, None] + torch.randint(40, (30, 1, 8, 8), generator=noise)
    ).to(torch.uint8)
    learnable = ImageData.of(
        "levels", TensorImages(pixels[:24], labels[:24]), TensorImages(pixels[24:], labels[24:])
    )
    space = SPACES["nb201"]()
    monkeypatch.setattr(
        Random,
        "ask",
        lambda self: [] if vars(self).setdefault("told", False) else map(space.decode, CELLS),
    )
    monkeypatch.setattr(Random, "tell", lambda self, judged: setattr(self, "told", True))

    def inherited(setup, supernet, architecture, share, workers):
        return Judgement(0.9 - 0.1 * CELLS.index(space.encode(architecture)), 1.0, 12)

    monkeypatch.setattr("supernet.runs.judging.judge", inherited)

    def make(data=learnable, **settings) -> Run:
        return make_run(space, data=data, **SETTINGS | settings)

    make.data = learnable
    return make


def test_the_best_candidate_is_derived_and_what_was_ended_is_on_record(make):
    run, said = make(), []
    run.progress.message = said.append
    run.retrain()
    results = run.results()
    candidates = results["shortlist"]["candidates"]
    curves = [run.state.stages[f"candidate/{i}"]["result"]["curve"] for i in range(3)]
    assert [one["text"] for one in candidates] == CELLS
    first, dead, _ = candidates
    assert not first["ended"] and dead["ended"] and 7 <= dead["epochs"] < 10
    complete = [one for one in candidates if not one["ended"]]
    assert {one["epochs"] for one in complete} == {10}
    assert [len(curve) for curve in curves] == [one["epochs"] for one in candidates]
    assert (
        dead["upper_bound"]
        == upper_bound(curves[1], 10, 0.8, curves[:1])
        < first["held_out_accuracy"]
        == curves[0][-1]
    )
    lines = [line for line in said if "ended" in line]
    assert (
        lines[0].startswith(f"candidate/1: ended after {dead['epochs']} of 10 epochs; ")
        and "\n" not in lines[0]
    )
    assert len(lines) == len(candidates) - len(complete)
    best = max(complete, key=lambda one: one["held_out_accuracy"])
    assert results["architecture"]["text"] == results["shortlist"]["best"] == best["text"]
    steps = {
        name: stage["result"]["steps"] for name, stage in run.state.stages.items() if "/" in name
    }
    assert steps["candidate/0"] == 10 * 3 and steps["candidate/1"] == dead["epochs"] * 3
    # trainings that are compared use all images and all epochs
    assert steps["retrain/0"] == steps["random/0"] == 10 * 4
    assert results["derive"]["evaluated"] == 3
    seconds = [
        results[part]["seconds"]
        for part in ("search", "derive", "shortlist", "retrain", "random_baseline")
    ]
    assert results["total_seconds"] == pytest.approx(sum(seconds))
    page = run.report().read_text(encoding="utf-8")
    assert (
        "ended early: at most" in page
        and "accuracy on held-out training images" in page
        and "chosen" in page
    )


def test_candidates_never_train_on_what_judges_them_nor_see_a_test_image(make, tmp_path):
    run = make()
    parts = shortlist_splits(run.setup)
    assert sorted([*parts.weights.tolist(), *parts.architecture.tolist()]) == list(range(24))
    assert len(parts.architecture) == 6 and make.data.train.labels[
        parts.architecture
    ].bincount().tolist() == [2, 2, 2]
    run.derive()
    blind = replace(
        make.data, test=replace(make.data.test, pixels=torch.zeros_like(make.data.test.pixels))
    )
    other = make(data=blind, folder=tmp_path / "blind")
    other.derive()
    curves = [
        [one.state.stages[f"candidate/{i}"]["result"]["curve"] for i in range(3)]
        for one in (run, other)
    ]
    assert curves[0] == curves[1]


def test_a_run_that_is_stopped_among_its_candidates_ends_as_if_it_had_not_been(make, tmp_path):
    """It is stopped during the candidate that ends early."""
    run = make()
    train, training = run.work.train, []

    def stopping(stage, rows=None):
        training.append(stage.name)
        if stage.name == "candidate/1":
            after(stage, 9, lambda: run.stop._receive(signal.SIGTERM, None))
        return train(stage, rows)

    run.work.train = stopping
    with pytest.raises(Stopped):
        run.retrain()
    assert training == ["search/0", "candidate/0", "candidate/1"]
    again = make()
    again.retrain()
    stopped = {name: stage["result"] for name, stage in again.state.stages.items()}
    rows = (tmp_path / "metrics.jsonl").read_bytes()
    whole = make(folder=tmp_path / "whole")
    whole.retrain()
    clock = {"seconds", "peak_memory_bytes"}

    def figures(value):
        if isinstance(value, dict):
            return {k: figures(v) for k, v in value.items() if k not in clock}
        return [figures(v) for v in value] if isinstance(value, list) else value

    assert figures(stopped) == figures(
        {name: stage["result"] for name, stage in whole.state.stages.items()}
    )
    assert rows == (tmp_path / "whole" / "metrics.jsonl").read_bytes()
    for path in (tmp_path / "whole" / "checkpoints").glob("*.pt"):
        ours, theirs = (
            torch.load(folder / path.name)["state"]
            for folder in (tmp_path / "checkpoints", path.parent)
        )
        assert identical(ours, theirs)


def test_a_child_takes_the_candidates_over(make, tmp_path):
    """With other seeds of the same retraining, no candidate is trained again. With another recipe,
    all are trained again.
    """
    trained, parent = [], make()
    parent.derive()
    for name, changed in (("more", {"seeds": 2}), ("other", {"lr": 0.004})):
        child = make(folder=tmp_path / name, parent=tmp_path, retrain=SETTINGS["retrain"] | changed)
        train = child.work.train
        child.work.train = lambda stage, train=train, name=name: (
            trained.append((name, stage.name)) or train(stage)
        )
        child.derive()
        assert (child.results()["shortlist"] == parent.results()["shortlist"]) == (name == "more")
    assert trained == [("other", f"candidate/{i}") for i in range(3)]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"size": 0}, "shortlist.size=0: must be at least 1"),
        ({"held_out": 0.0}, "shortlist.held_out=0.0: must be greater than 0 and below 1"),
        ({"confidence": 1.0}, "shortlist.confidence=1.0: must be"),
        ({"first_look": 1.5}, "shortlist.first_look=1.5: must be"),
        ({"size": 4}, "shortlist.size=4: searcher=random judges at most 3"),
    ],
)
def test_wrong_settings_are_named(make_run, changed, message):
    with pytest.raises(UserError) as caught:
        make_run(SPACES["nb201"](), **SETTINGS | {"shortlist": SETTINGS["shortlist"] | changed})
    assert message in str(caught.value) and "\n" not in str(caught.value)
