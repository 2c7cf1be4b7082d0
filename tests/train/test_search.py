"""The search stage, for every space, sampler and learner, and compared with steps written by hand
in plain PyTorch.
"""

import copy
import dataclasses
import itertools
import math
import random
import signal

import numpy as np
import pytest
import torch
from timm.utils.model_ema import ModelEmaV3
from torch.nn import functional as F

from supernet.data import Augment
from supernet.errors import UserError
from supernet.evaluate.accuracy import Judgement
from supernet.guards.early_stop import EarlyStop
from supernet.learners.fixed import Fixed
from supernet.learners.gradient import Gradient
from supernet.learners.reinforce import ReinforceLearner
from supernet.mixture import Choice
from supernet.modifiers.beta_decay import BetaDecay
from supernet.randomness import Streams
from supernet.runs.judge import Judge
from supernet.runs.judging import all_judged, judge, kept_judgements, untrained
from supernet.runs.search import trained_supernet
from supernet.runs.training import Train, stage_of, trained_network
from supernet.samplers.policy import Policy
from supernet.samplers.snas import SNAS
from supernet.samplers.softmax import Softmax
from supernet.samplers.uniform import Uniform
from supernet.track.jsonlines import read_rows
from supernet.train.loop import Stopped
from supernet.train.search import mean_scores
from tests.compare import differences, identical
from tests.tasks import task_of
from tests.train.stopping import stopped_and_resumed, straight
from tests.variants import SPACES, cells_alone


def clones(tensors) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().clone() for name, tensor in tensors}


def recorded(method, calls: list):
    """``method``, changed so that its results are appended to ``calls``."""

    def call(*arguments):
        calls.append(method(*arguments))
        return calls[-1]

    return call


@pytest.mark.parametrize("space", ["nb201", "Net"], indirect=True)
def test_stopped_anywhere_and_resumed_it_ends_in_the_same_bits(
    space, sampler, learner, search_stage, everything_varied, tmp_path, request
):
    """Invariant 4. A second run with the same seed also has the same bits as the first. On cells of
    DARTS, which take long, the next test shows it, and those of guards and modifiers do.
    """

    def make():
        return search_stage(
            space,
            sampler,
            learner,
            augment=everything_varied,
            epochs=1,
            warmup_epochs=0.5,
            label_smoothing=0.1,
        )

    whole = make()
    rows = straight(whole)
    at = random.Random(request.node.name).randrange(1, whole.steps)
    resumed, resumed_rows = stopped_and_resumed(make, at, tmp_path)
    assert identical(whole.state_dict(), resumed.state_dict())
    assert resumed_rows == rows and [step for _, step, _ in rows] == [2, 3]


def test_the_average_that_judges_is_timms_and_is_resumed(space, search_stage, tmp_path):
    def make():
        return search_stage(space, Uniform(), Fixed(), ema_decay=0.9)

    whole = make()
    second = ModelEmaV3(copy.deepcopy(whole.supernet), decay=0.9, use_warmup=True, foreach=False)
    for index in range(whole.steps):
        whole.step(index)
        second.update(whole.supernet, step=index + 1)
    assert identical(whole.trained.state_dict(), second.module.state_dict())
    assert not identical(whole.trained.state_dict(), whole.supernet.state_dict())
    resumed, _ = stopped_and_resumed(make, 3, tmp_path)
    assert identical(resumed.trained.state_dict(), whole.trained.state_dict())
    with pytest.raises(UserError, match=r"^search\.ema_decay=0\.9: needs one supernet"):
        search_stage(space, Uniform(), Fixed(), ema_decay=0.9, depths=[[0.0, 0.5], [0.5, 1.0]])


def test_in_bf16_too(space, search_stage, tmp_path):
    def make():
        return search_stage(space, Softmax(), Gradient(), epochs=1, precision="bf16")

    whole, products = make(), []
    convolution = next(m for m in whole.supernet.modules() if isinstance(m, torch.nn.Conv2d))
    convolution.register_forward_hook(lambda *call: products.append(call[-1].dtype))
    rows = straight(whole)
    resumed, resumed_rows = stopped_and_resumed(make, 1, tmp_path)
    assert set(products) == {torch.bfloat16}
    assert {w.dtype for w in [*whole.supernet.parameters(), *whole.logits.values()]} == {
        torch.float32
    }
    assert identical(whole.state_dict(), resumed.state_dict()) and resumed_rows == rows


def test_another_seed_is_another_run(space, search_stage):
    first, second = (search_stage(space, Softmax(), Gradient(), seed=seed) for seed in (0, 1))
    assert not any(torch.equal(first.logits[name], second.logits[name]) for name in first.logits)
    for batches in ("weight_batches", "architecture_batches"):
        assert not torch.equal(next(getattr(first, batches))[0], next(getattr(second, batches))[0])
    assert any(
        not torch.equal(a, b)
        for a, b in zip(first.supernet.parameters(), second.supernet.parameters(), strict=True)
    )


def test_weights_move_by_their_gradient_alone_and_no_gradient_is_left_anywhere(
    space, sampler, learner, search_stage
):
    stage, twin = (search_stage(space, sampler, learner, clip=0.0) for _ in range(2))
    assert check_weight_gradients(stage, twin)
    assert all(
        tensor.grad is None for tensor in [*stage.supernet.parameters(), *stage.logits.values()]
    )
    assert all(
        torch.equal(stage.logits[n], twin.logits[n]) != (stage.learner.moves == "logits")
        for n in stage.logits
    )


def test_several_paths_a_step_average_their_gradients(space, search_stage):
    assert (
        len(
            check_weight_gradients(
                *(search_stage(space, Uniform(paths=3), Fixed(), clip=0.0) for _ in range(2))
            )
        )
        == 3
    )


def check_weight_gradients(stage, twin) -> list:
    """Does the first step of ``stage`` and checks that its weights get the mean gradient over the
    mixtures and no other. Returns the mixtures.

    The expected gradients are computed on ``twin``, an equal stage that has not moved. If the first
    mixture teaches the others, their loss is the cross-entropy with its softmax.
    """
    images, labels = next(twin.weight_batches)
    mixtures, seen = [], {}
    stage.sampler.mixtures = recorded(stage.sampler.mixtures, mixtures)
    weights = dict(stage.supernet.named_parameters())
    stage.weights.optimizer.register_step_pre_hook(
        lambda *_: seen.update({name: copy.deepcopy(w.grad) for name, w in weights.items()})
    )
    stage.step(0)
    outputs = [twin.supernet(images, mixture) for mixture in mixtures[0]]
    losses = [F.cross_entropy(output, labels) for output in outputs]
    if stage.sampler.distils:
        teacher = outputs[0].detach().softmax(1)
        losses[1:] = [-(teacher * output.log_softmax(1)).sum(1).mean() for output in outputs[1:]]
    expected = torch.autograd.grad(
        sum(losses) / len(losses), list(twin.supernet.parameters()), allow_unused=True
    )
    assert sum(gradient is not None for gradient in expected) > 10
    for name, gradient in zip(weights, expected, strict=True):
        if gradient is None:
            assert seen[name] is None
        else:
            torch.testing.assert_close(seen[name], gradient)
    return mixtures[0]


def test_a_step_of_first_order_darts_is_the_textbooks(space, search_stage):
    """Liu et al. 2019, algorithm 1 with xi = 0, in plain PyTorch, with the same batches and the
    same initial weights.
    """
    stage, twin = (
        search_stage(space, Softmax(), Gradient(lr=0.1), clip=0.5, weight_decay=0.01)
        for _ in range(2)
    )
    network = twin.supernet.train()
    alphas = {
        name: torch.nn.Parameter(table.detach().clone()) for name, table in twin.logits.items()
    }
    outer = torch.optim.Adam(alphas.values(), lr=0.1, betas=(0.5, 0.999), weight_decay=1e-3)
    inner = torch.optim.SGD(network.parameters(), lr=0.05, momentum=0.9, weight_decay=0.01)

    def loss(batch):
        images, labels = batch
        return F.cross_entropy(
            network(images, {n: Choice.dense(a.softmax(-1)) for n, a in alphas.items()}), labels
        )

    for index in range(4):
        stage.step(index)
        training, validation = next(twin.weight_batches), next(twin.architecture_batches)
        outer.zero_grad()
        loss(validation).backward()
        outer.step()
        inner.zero_grad()
        loss(training).backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 0.5)
        inner.param_groups[0]["lr"] = (
            0.001 + (0.05 - 0.001) * (1 + math.cos(math.pi * index / 6)) / 2
        )
        inner.step()
    for name, table in stage.logits.items():
        torch.testing.assert_close(table.detach(), alphas[name].detach())
    torch.testing.assert_close(
        dict(stage.supernet.named_parameters()),
        dict(network.named_parameters()),
        rtol=1e-4,
        atol=1e-6,
    )


@cells_alone
def test_a_step_of_spos_is_a_step_of_the_paths_own_network(space, search_stage):
    """No other weight moves, neither by momentum nor by weight decay (Guo et al. 2020, section
    3.2).
    """
    stage = search_stage(
        space, Uniform(), Fixed(), epochs=2, lr=0.1, lr_min=0.1, clip=0.5, weight_decay=0.1
    )
    twin = search_stage(space, Uniform(), Fixed())
    architectures = []
    stage.budget.random = recorded(stage.budget.random, architectures)
    weights = dict(stage.supernet.named_parameters())
    for index in range(3):
        images, labels = next(twin.weight_batches)
        before = clones(stage.supernet.state_dict().items())
        velocity = {
            name: copy.deepcopy(stage.weights.optimizer.state.get(weight, {}))
            for name, weight in weights.items()
        }
        stage.step(index)
        network = space.standalone(architectures[-1], task_of(3, 1), "search")
        origin = space.origins(network, architectures[-1])
        network.load_state_dict({name: before[own] for name, own in origin.items()})
        optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9, weight_decay=0.1)
        for name, weight in network.named_parameters():
            optimizer.state[weight] = velocity[origin[name]]
        F.cross_entropy(network(images), labels).backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 0.5)
        optimizer.step()
        for name, weight in network.named_parameters():
            torch.testing.assert_close(weights[origin[name]], weight, rtol=1e-4, atol=1e-6)
        assert not torch.equal(network.stem[0].weight, before["stem.0.weight"])
        others = weights.keys() - set(origin.values())
        assert others and all(torch.equal(weights[name], before[name]) for name in others)


def test_every_architecture_step_sees_other_images_none_of_which_trains_weights(
    space, sampler, learner, search_stage, data, splits
):
    """Invariant 5. The level of an image identifies it."""
    stage = search_stage(space, sampler, learner)

    def which(images):
        pixels = images * 255 * data.std + 255 * data.mean
        return (pixels.mean((1, 2, 3)) / 8).floor().long().tolist()

    seen = {"weights": [], "architecture": []}

    def step(problem):
        seen["weights"] += which(problem.weight_batch[0])
        seen["architecture"] += which(problem.architecture_batch[0])
        return {}

    stage.learner.step = step
    for index in range(stage.steps_per_epoch):
        stage.step(index)
    if learner.learns:
        assert [sorted(images) for images in seen.values()] == [
            splits.weights.tolist(),
            splits.architecture.tolist(),
        ]
    else:
        assert not seen["architecture"] and stage.architecture_batches.state_dict()["epoch"] is None


DARTS, SPOS = (Softmax(), Gradient()), (Uniform(), Fixed())


@pytest.mark.parametrize(
    ("method", "other"), [(DARTS, SPOS), (SPOS, DARTS)], ids=["darts from spos", "spos from darts"]
)
def test_the_starting_weights_are_those_given(space, method, other, search_stage):
    """This is a warm start: the supernets of all methods have the same tensors. Nothing but weights
    is taken over.
    """
    before = search_stage(space, *other, seed=5)
    before.step(0)
    start = before.supernet.state_dict()
    stage, cold = search_stage(space, *method, start=start), search_stage(space, *method)
    assert identical(stage.supernet.state_dict(), start) and not identical(
        cold.supernet.state_dict(), start
    )
    assert identical(
        stage.state_dict() | {"supernet": None}, cold.state_dict() | {"supernet": None}
    )


def test_the_end_of_an_epoch_reports_the_logits_and_their_entropy(space, search_stage):
    stage = search_stage(space, Softmax(), Gradient())
    with torch.no_grad():
        for table in stage.logits.values():
            table.zero_()
            table[0, 1] = 100.0
    figures = stage.end_of_epoch()
    for group in space.groups:
        # in nats; one of the slots has no entropy
        certain = math.log(len(group.options)) * (group.slots - 1) / group.slots
        assert figures[f"entropy/{group.name}"] == pytest.approx(certain)
        assert figures[f"logits/{group.name}/0/{group.options[1]}"] == 100.0
    assert len(figures) == sum(1 + group.slots * len(group.options) for group in space.groups)
    assert search_stage(space, Uniform(), Fixed()).end_of_epoch() == {}


def test_a_learner_of_a_policy_reports_its_reward_and_entropy_and_no_logits(space, search_stage):
    stage = search_stage(space, Policy(hidden=8), ReinforceLearner())
    figures = stage.step(0)
    # in nats; a new policy is nearly uniform
    most = sum(math.log(len(gene.values)) for gene in space.genes)
    assert 0.99 * most < float(figures["entropy/policy"]) <= 1.0001 * most
    assert 0 <= float(figures["reward"]) <= 1 and stage.end_of_epoch() == {}


class Sealed:
    """Test images that nothing may read while they are sealed. After that, it counts how often they
    are read. Their checksum may be computed: it says nothing about how a network does on them.
    """

    def __init__(self, images):
        self.images, self.open, self.streams = images, False, 0

    def __len__(self):
        return len(self.images)

    def __getattr__(self, name):
        assert self.open or name == "fingerprint", f"the test set's {name} was read"
        self.streams += name == "stream"
        return getattr(self.images, name)

    def to(self, device):
        return self


def test_search_and_derivation_never_touch_the_test_set_and_each_retraining_does_once(
    space, make_run, data, monkeypatch
):
    """Invariant 5. The warning about images of one colour is left out here: no network sees it."""
    monkeypatch.setattr("supernet.data.dataset.constants", lambda *images: [])
    test = Sealed(data.test)
    run = make_run(
        space,
        dataclasses.replace(data, test=test),
        retrain={"epochs": 1, "seeds": 2, "auxiliary_weight": 0.0},
    )
    run.search()
    architecture = run.derive()
    judge(run.setup, trained_supernet(run.work).supernet, architecture)
    training = Train("retrain", 0, architecture)
    stage = stage_of(run.work, training)
    for index in range(stage.steps):
        stage.step(index)
    test.open = True
    run.retrain()
    trained_network(run.work, training)
    assert test.streams == 2


def test_a_searcher_maximises_the_vote(make_run, monkeypatch):
    """Planted scores count convolutions. What the searcher is told of an architecture is its vote
    on the scale of the reference, and evolution finds better and better ones by it.
    """

    def convolutions(architecture):
        return float(sum("conv" in option for option in architecture["edges"]))

    def planted(work, asked):
        scored = untrained(work, asked)

        def counted(architecture):
            assert set(asked) == set(scored(architecture))
            return dict.fromkeys(asked, convolutions(architecture))

        return counted

    monkeypatch.setattr("supernet.runs.value.untrained", planted)
    evolution = {"_target_": "supernet.searchers.evolution.Evolution", "candidates": 24}
    run = make_run(
        SPACES["nb201"](),
        judge={"by": "vote", "reference": 9},
        searcher=evolution | {"population": 8, "sample": 8},
        shortlist={"size": 3},
    )
    run.search()
    run.perform([Judge()])
    key = run.work.key(Judge())
    with kept_judgements(run.work, f"{key}-reference") as reference:
        scale = [(-judged.loss, convolutions(one)) for (one, _), judged in reference.known.items()]
    with kept_judgements(run.work, key) as kept:
        found = {one: judged for (one, _), judged in kept.known.items()}
    votes = []
    for one, judged in found.items():
        (low, middle, high), said = np.percentile(scale, [25, 50, 75], axis=0), []
        for voter, score in ((0, -judged.loss), (1, convolutions(one)), (1, convolutions(one))):
            said.append((score - middle[voter]) / (high[voter] - low[voter]))
        votes.append(1 / (1 + math.exp(-np.mean(said))))
    assert [judged.value for judged in found.values()] == pytest.approx(votes)
    best = run.work.result(Judge())["best"]
    texts = [run.work.space.encode(one) for one in found]
    assert best == [texts[i] for i in np.argsort(votes)[::-1][:3]]
    assert np.mean(votes[-8:]) > np.mean(votes[:8])


def test_the_seconds_before_a_stop_count(make_run):
    run = make_run(SPACES["nb201"](), judge={"by": "vote", "reference": 4})
    run.search()
    keys = run.work.key(Judge()), "other"
    for key in keys:
        with pytest.raises(Stopped), kept_judgements(run.work, key) as kept:
            kept.began -= 1000
            raise Stopped(signal.SIGTERM)
    run.perform([Judge()])
    assert 1000 < run.work.result(Judge())["found"]["seconds"] < 1100
    one = run.work.space.random(np.random.default_rng(0))
    judged, seconds = all_judged(
        run.work, "other", [one], lambda _: Judgement(0.5, 1.0, 1), lambda *_: None
    )
    assert judged == [Judgement(0.5, 1.0, 1)] and 1000 < seconds < 1100


def test_the_loss_can_decide(make_run):
    searcher = {"_target_": "supernet.searchers.random.Random", "candidates": 9}
    run = make_run(SPACES["nb201"](), judge={"by": "loss"}, searcher=searcher)
    run.search()
    run.perform([Judge()])
    rows = read_rows(run.work.folder / "metrics" / "derive.jsonl")
    best = min(rows, key=lambda row: row["loss"])
    assert best["value"] == pytest.approx(math.exp(-best["loss"])) and len(rows) > 3
    with kept_judgements(run.work, run.work.key(Judge())) as kept:
        (found,) = [one for one, judged in kept.known.items() if judged.loss == best["loss"]]
    assert run.work.result(Judge())["best"][0] == run.work.space.encode(found[0])
    with pytest.raises(UserError, match=r"^judge\.by='rank': choose accuracy, loss or vote"):
        make_run(SPACES["nb201"](), judge={"by": "rank"})


def test_a_run_derives_by_perturbation_and_says_how(make_run):
    space = SPACES["nb201"]()
    run = make_run(
        space,
        searcher={
            "_target_": "supernet.searchers.perturbation.PerturbationSelection",
            "tune_epochs": 0.4,
        },
    )
    architecture = run.derive()
    found = run.results()["derive"]
    assert [one["kept"] for one in sorted(found["kept"], key=lambda one: one["slots"])] == list(
        architecture["edges"]
    )
    assert (
        found["searcher"] == "perturbation"
        and found["tuned_steps"] == 6
        and found["evaluated"] == 1
    )


# --- several supernets


@cells_alone
def test_supernets_of_other_scopes_are_searches_of_their_own_whose_mean_scores_decide(
    space, search_stage, tmp_path
):
    """They have the same settings, but other weights, images and random draws. A supernet without a
    scope has the same bits as the search of a single supernet.
    """

    def make(scope=""):
        return search_stage(
            space,
            SNAS(),
            Gradient(lr=0.1),
            modifiers=[BetaDecay(1.0)],
            augment=Augment(crop_padding=1, flip=True),
            scope=scope,
            epochs=1,
            warmup_epochs=0.5,
        )

    def searched(stage):
        first, seen = copy.deepcopy(stage.state_dict()), []
        relax = stage.sampler.relaxation

        def relaxation(logits, progress, noise):
            rate = stage.weights.optimizer.param_groups[0]["lr"]
            seen.append((progress, rate, noise.initial_seed()))
            return relax(logits, progress, noise)

        stage.sampler.relaxation = relaxation
        straight(stage)
        del stage.sampler.relaxation
        return first, seen

    stages = [make(), make("supernet/1"), make("supernet/2")]
    found = [searched(stage) for stage in stages]
    assert {len(seen) for _, seen in found} == {stages[0].steps}
    for step in zip(*(seen for _, seen in found), strict=True):
        assert len({(progress, rate) for progress, rate, _ in step}) == 1  # schedules are the same
        assert len({seed for _, _, seed in step}) == 3  # draws of relaxations are not
    fresh = [make(stage.streams.scope) for stage in stages]
    images = [[next(stage.weight_batches), next(stage.architecture_batches)] for stage in fresh]
    for one, other in itertools.combinations(range(3), 2):
        for part in ("supernet", "logits"):
            assert any(differences(found[one][0][part], found[other][0][part]))
            ends = (stages[which].state_dict()[part] for which in (one, other))
            assert any(differences(*ends))
        for pair in zip(images[one], images[other], strict=True):
            assert any(differences(*pair))
    mean = mean_scores([stage.scores() for stage in stages])
    for name, table in mean.items():
        outside = np.mean([stage.scores()[name].numpy() for stage in stages], axis=0)
        np.testing.assert_allclose(table.numpy(), outside, rtol=1e-6)

    again = make("supernet/1")
    straight(again)
    assert identical(again.state_dict(), stages[1].state_dict())
    resumed, _ = stopped_and_resumed(lambda: make("supernet/1"), 1, tmp_path)
    assert identical(resumed.state_dict(), stages[1].state_dict())


def test_without_a_scope_a_search_has_the_random_numbers_of_its_seed(space, search_stage):
    """The weights of a run with one supernet are those that the seed gives."""
    stage = search_stage(space, Softmax(), Gradient())
    with Streams(0).initialising("supernet"):
        supernet = space.supernet(task_of(3, 1))
    assert identical(dict(stage.supernet.state_dict()), dict(supernet.state_dict()))


def test_the_mean_of_one_supernets_scores_is_its_scores(space, search_stage):
    scores = search_stage(space, Softmax(), Gradient()).scores()
    assert identical(mean_scores([scores]), scores)


def test_several_supernets_need_logits_or_judgements_to_average(search_stage):
    message = r"^search\.supernets=2: the logits or the judgements of several supernets"
    with pytest.raises(UserError, match=message):
        search_stage(SPACES["nb201"](), Policy(), ReinforceLearner(), supernets=2)
    search_stage(SPACES["nb201"](), Uniform(), Fixed(), supernets=2)
    for settings in ({"depths": [[0.0, 0.5], [0.5, 1.0]]}, {"freeze_weights": True}):
        search_stage(SPACES["nb201"](), Softmax(), Gradient(), supernets=2, **settings)
    guards = {"early_stop": EarlyStop()}
    search_stage(SPACES["nb201"](), Softmax(), Gradient(), supernets=2, guards=guards)
