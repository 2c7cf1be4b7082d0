"""That each lead judges the architectures of a rank by what the tool's docstring says."""

import sys

import numpy as np
import pytest
import torch

from supernet.cli.composition import composed
from supernet.cli.recorded import overrides_of
from supernet.evaluate.accuracy import evaluate
from supernet.randomness import Streams
from supernet.runs.folder import State
from supernet.runs.judging import batches, judge
from supernet.runs.search import trained_supernet
from supernet.runs.setup import Setup
from supernet.runs.work import Work
from tests.commands import TINY, finished
from tools import leads


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    """The folder of a run whose supernet is trained on uniform single paths."""
    settings = [*TINY, "tracker=none", "method=spos", "search.epochs=1", "data.image_size=4"]
    return finished("search", *settings, cwd=tmp_path_factory.mktemp("searched"))


@pytest.fixture
def work(searched):
    return Work(Setup(composed(overrides_of(searched))), State.read(searched))


@pytest.fixture
def cells(work):
    return work.different(np.random.default_rng(0), 4)


def test_statistics_of_each_batch_are_those_of_a_network_in_training_mode(work, cells):
    judge_one = leads.batch_statistics(work, "")
    supernet = trained_supernet(work).trained
    for cell in cells:
        network = work.space.inherit(supernet, cell).train()
        images = batches(work.setup, work.setup.splits.architecture)
        expected, found = evaluate(network, images, work.setup.task), judge_one(cell)
        assert found.accuracy == expected.accuracy
        assert found.loss == pytest.approx(expected.loss, rel=1e-5)


def test_the_checkpoint_of_one_epoch_judges_as_the_supernet_does(work, cells):
    """It trains again with the same random numbers, so that the weights have the same bits."""
    judge_one, supernet = leads.checkpoints(work, ""), trained_supernet(work).trained
    for cell in cells:
        assert judge_one(cell) == judge(work.setup, supernet, cell)


def test_several_supernets_judge_together(work, cells):
    """The second one begins with other random numbers."""
    (first, both), cell = (leads.several(work, count) for count in ("1", "2")), cells[0]
    one = judge(work.setup, trained_supernet(work).trained, cell)
    assert first(cell) == one != both(cell)


@pytest.fixture
def trainings(monkeypatch):
    """A training adds its number to all weights. Returns what each began with, and its paths."""
    begun = []

    def train(stage):
        weights = next(stage.supernet.parameters())
        paths = {stage.sampler.drawn() for _ in range(50)}
        begun.append((weights.mean().item(), paths))
        with torch.no_grad():
            weights.add_(len(begun))

    monkeypatch.setattr(leads, "run_stage", train)
    return begun


def test_fewer_and_fewer_architectures_share_weights(work, cells, trainings):
    judge_one = leads.split(work, "1x1,5x1,25x1")
    (first, everything), fives, rest = trainings[0], trainings[1:6], trainings[6:]
    assert len(everything) > 40
    assert [start - first for start, _ in fives] == pytest.approx([1] * 5)
    (group,) = work.space.groups
    for number, (start, paths) in enumerate(rest):
        assert start - first == pytest.approx(1 + 2 + number // 5)  # what the two trainings added
        options = group.options[number // 5], group.options[number % 5]
        assert {path[group.name][:2] for path in paths} == {options}
        assert len(paths) > 25
    assert judge_one(cells[0]) != judge_one(cells[1])


def test_copies_that_are_joined_begin_with_their_mean(work, trainings):
    leads.split(work, "5x1,1x1")
    first = trainings[0][0]
    assert trainings[-1][0] - first == pytest.approx(np.mean([1, 2, 3, 4, 5]))
    with pytest.raises(SystemExit, match="4 copies do not divide the first slots; 5 would"):
        leads.split(work, "4x1")


def test_what_skips_add_is_found_and_subtracted(work):
    cells = work.different(np.random.default_rng(0), 40)
    points = [{"text": work.space.encode(cell)} for cell in cells]
    skips = np.array([cell["edges"].count("skip_connect") for cell in cells])
    truth = np.random.default_rng(0).uniform(80, 95, 40)
    seen = 0.01 * truth + 0.02 * skips - 1
    assert leads.corrected(work, points, truth, seen) == pytest.approx(0.01 * truth - 1)


def test_a_rank_beside_a_lead(searched, work, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("supernet.evaluate.ranking.RESAMPLES", 20)
    drawn = work.different(Streams(work.config.seed).host("rank"), 6)  # as the rank will
    texts, figures = [work.space.encode(cell) for cell in drawn], np.linspace(0, 100, 6)
    table = tmp_path / "table.npz"
    np.savez(table, arch=np.array(texts), test_200=figures)
    ranked = finished(
        "rank",
        f"from={searched}",
        f"rank.published={table}",
        "rank.architectures=6",
        "rank.scratch=0",
        cwd=tmp_path,
    )
    monkeypatch.setattr(sys, "argv", ["leads", str(ranked), "batch"])
    leads.main()
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines if "best tenth" in line] == [
        f"{row}, {how}"
        for row in ("as ranked", "batch")
        for how in ("accuracy", "minus the loss", "vote")
    ]
    monkeypatch.setattr(sys, "argv", ["leads", str(ranked), "fewer"])
    with pytest.raises(SystemExit):
        leads.main()
    assert "choose skips, batch, checkpoints, several, split" in capsys.readouterr().err
