"""What every modifier must do, and what each one does."""

import random

import pytest
import torch
from torch.nn import functional as F

from supernet.errors import UserError
from supernet.learners.fixed import Fixed
from supernet.learners.gradient import Gradient
from supernet.learners.reinforce import ReinforceLearner
from supernet.mixture import Choice
from supernet.modifiers.auxiliary_skip import AuxiliarySkip
from supernet.modifiers.beta_decay import BetaDecay
from supernet.modifiers.drop_path import OptionDropout
from supernet.modifiers.edge_normalisation import EdgeNormalisation
from supernet.modifiers.modifier import Modified
from supernet.modifiers.perturbation import WeightPerturbation
from supernet.modifiers.pruning import Pruning
from supernet.modifiers.skip_dropout import SkipDropout
from supernet.samplers.drnas import DrNAS
from supernet.samplers.gdas import GDAS
from supernet.samplers.policy import Policy
from supernet.samplers.proxyless import Proxyless
from supernet.samplers.snas import SNAS
from supernet.samplers.softmax import Softmax
from supernet.samplers.uniform import Uniform
from tests.compare import identical
from tests.samplers.drawing import begun
from tests.train.stopping import stopped_and_resumed, straight
from tests.train.test_search import check_weight_gradients
from tests.variants import MODIFIERS, SAMPLERS, SPACES, cells_alone


def modified(sampler, *modifiers, space):
    return begun(Modified(sampler, modifiers), space)


def logits_of(sampler, space, noise):
    shapes = {group.name: group.shape for group in space.groups} | sampler.tables()
    return {name: torch.randn(shape, generator=noise) for name, shape in shapes.items()}


def quadratic(mixture):
    """A loss that is differentiable in the weights, with its minimum outside the simplex."""
    return sum(
        (choice.weights - 2 * torch.arange(choice.weights.shape[1])).square().sum()
        for choice in mixture.values()
    )


# --- every modifier


@pytest.mark.parametrize("name", SAMPLERS)
def test_they_all_go_with_every_sampler(name, search_stage):
    """A step leaves no gradient anywhere, and moves weights. The derivation and the excess know
    only the groups of the space.
    """
    space = SPACES["nb201"]()
    sampler = SAMPLERS[name]()
    learner = ReinforceLearner() if sampler.scores_from == "policy" else Gradient()
    stage = search_stage(space, sampler, learner, modifiers=[make() for make in MODIFIERS.values()])
    before = stage.supernet.stem[0].weight.detach().clone()
    for index in (0, 4):
        figures = stage.step(index)
    assert all(value.isfinite() for value in figures.values()) and not torch.equal(
        stage.supernet.stem[0].weight, before
    )
    assert all(
        tensor.grad is None for tensor in [*stage.supernet.parameters(), *stage.logits.values()]
    )
    assert stage.scores().keys() == {group.name for group in space.groups}
    space.validate(space.derive(stage.scores()))


def test_stopped_anywhere_and_resumed_it_ends_in_the_same_bits(
    modifier, search_stage, tmp_path, request
):
    def make():
        return search_stage(
            SPACES["nb201"](), SNAS(), Gradient(order="second"), modifiers=[modifier], epochs=1
        )

    whole = make()
    rows = straight(whole)
    resumed, resumed_rows = stopped_and_resumed(
        make, random.Random(request.node.name).randrange(1, whole.steps), tmp_path
    )
    assert identical(whole.state_dict(), resumed.state_dict()) and resumed_rows == rows


@cells_alone
def test_the_weights_get_the_gradient_of_the_modified_mixture(space, modifier, search_stage):
    stage, twin = (
        search_stage(space, Softmax(), Gradient(), modifiers=[modifier], clip=0.0) for _ in range(2)
    )
    assert check_weight_gradients(stage, twin)


def test_all_at_once(search_stage):
    modifiers = [make() for make in MODIFIERS.values()]
    stage = search_stage(SPACES["darts"](), GDAS(), Gradient(), modifiers=modifiers, epochs=1)
    straight(stage)
    assert len(stage.logits) == 2 + 8  # of two cells, and of the four nodes of each


# --- edge normalisation


@cells_alone
def test_edge_normalisation_multiplies_by_a_softmax_over_the_edges_into_each_node(space, noise):
    sampler = modified(Softmax(), EdgeNormalisation(), space=space)
    logits = logits_of(sampler, space, noise)
    relaxed, plain = (s.relaxation(logits, 0.0, noise) for s in (sampler, Softmax()))
    scores = sampler.scores(logits)
    for group in space.groups:
        slots = [slot for node in space.sums(group.name) for slot in node]
        assert sorted(slots) == list(range(group.slots))  # every slot is an in-edge of one node
        for node, members in enumerate(space.sums(group.name)):
            exponents = (
                [float(b) for b in logits[f"{group.name}/edges/{node}"][0].exp()]
                if len(members) > 1
                else [1.0]
            )
            for slot, exponent in zip(members, exponents, strict=True):
                expected = plain[group.name].weights[slot] * exponent / sum(exponents)
                torch.testing.assert_close(relaxed[group.name].weights[slot], expected)
                torch.testing.assert_close(scores[group.name][slot], expected)


def test_edge_normalisation_decides_which_edges_darts_keeps(noise):
    """PC-DARTS derives by alpha * beta."""
    space = SPACES["darts"]()
    sampler = modified(Softmax(), EdgeNormalisation(), space=space)
    logits = logits_of(sampler, space, noise)
    logits["normal/edges/3"] = torch.tensor([[0.0, 9.0, 0.0, 9.0, 0.0]])
    kept = [
        slot
        for slot in space.sums("normal")[3]
        if space.derive(sampler.scores(logits))["normal"][slot] != "none"
    ]
    assert kept == [space.sums("normal")[3][1], space.sums("normal")[3][3]]


def test_the_betas_are_learnt_and_logged(search_stage):
    stage = search_stage(
        SPACES["nb201"](), Softmax(), Gradient(lr=0.1), modifiers=[EdgeNormalisation()]
    )
    before = {name: table.detach().clone() for name, table in stage.logits.items()}
    stage.step(0)
    assert all(not torch.equal(table, before[name]) for name, table in stage.logits.items())
    figures = stage.end_of_epoch()
    assert sum(figures[f"share/edges/edges/2/{edge}"] for edge in range(3)) == pytest.approx(1.0)


# --- beta decay


def test_beta_decay_pulls_every_logit_by_its_share(noise):
    """The gradient of the penalty is the softmax, divided by the number of slots. Pruned options
    have no part in it.
    """
    space = SPACES["nb201"]()
    sampler = modified(Softmax(), BetaDecay(weight=12.0), Pruning([[0.0, 3]]), space=space)
    logits = logits_of(sampler, space, noise)
    sampler.advance(logits, 0.0)
    table = logits["edges"].requires_grad_()
    (pull,) = torch.autograd.grad(sampler.penalty(logits, 0.25), [table])
    shares = (
        Softmax()
        .relaxation(sampler.seen({"edges": table.detach()}, sampler.leader), 0.0, noise)["edges"]
        .weights
    )
    assert (shares == 0).sum() == 2 * len(table)
    torch.testing.assert_close(pull, 12.0 * 0.25 * shares / len(table))
    assert sampler.penalty(logits, 0.0) == 0


# --- auxiliary skip


def test_the_auxiliary_skip_is_a_second_skip_whose_weight_fades(noise):
    """At stride 1 the skip is an identity. A cell with another skip beside every slot is computed
    by hand.
    """
    space = SPACES["nb201"]()
    sampler, (group,) = modified(Softmax(), AuxiliarySkip(start=0.8), space=space), space.groups
    logits = logits_of(sampler, space, noise)
    skip, plain = (
        group.options.index("skip_connect"),
        Softmax().relaxation(logits, 0.0, noise)["edges"].weights,
    )
    for progress, beta in ((0.0, 0.8), (0.5, 0.4), (1.0, 0.0)):
        changed = sampler.relaxation(logits, progress, noise)["edges"].weights
        assert torch.equal(changed[:, :skip], plain[:, :skip]) and torch.equal(
            changed[:, skip + 1 :], plain[:, skip + 1 :]
        )
        torch.testing.assert_close(changed[:, skip], plain[:, skip] + beta)
    assert torch.equal(sampler.scores(logits)["edges"], Softmax().scores(logits)["edges"])
    assert AuxiliarySkip(decay="cosine").beta(0.25) == pytest.approx(0.8535534)
    with pytest.raises(
        UserError, match=r"modifier\.auxiliary_skip\.decay: unknown 'lineer'; did you mean 'linear'"
    ):
        AuxiliarySkip(decay="lineer")


def test_the_auxiliary_skip_runs_beside_a_path(noise):
    space = SPACES["nb201"]()
    sampler = modified(Uniform(), AuxiliarySkip(), space=space)
    (mixture,) = sampler.mixtures(logits_of(sampler, space, noise), 0.25, quadratic)
    for slot, weights in zip(mixture["edges"].active, mixture["edges"].weights, strict=True):
        assert (
            1 in slot
            and weights[1] == (1.75 if slot == (1,) else 0.75)
            and all(weights[o] == 1 for o in slot if o != 1)
        )


# --- perturbation


@pytest.mark.parametrize("mode", ["random", "adversarial"])
@pytest.mark.parametrize("sampler", [Softmax, GDAS, DrNAS])
def test_a_perturbed_mixture_is_near_and_has_the_same_sums(space, mode, sampler, noise):
    """The change is at most epsilon before scaling, and the scale is at most 1 / (1 - epsilon *
    options).
    """
    perturbed = modified(sampler(), WeightPerturbation(mode, start=0.02, end=0.02), space=space)
    logits = logits_of(perturbed, space, noise)
    # the same streams, and so the same draw
    (plain, *_) = begun(sampler(), space).mixtures(logits, 0.5, quadratic)
    (mixture,) = perturbed.mixtures(logits, 0.5, quadratic)
    for name, choice in mixture.items():
        moved = (choice.weights - plain[name].weights).abs()
        assert choice.active == plain[name].active and not choice.weights.requires_grad
        torch.testing.assert_close(choice.weights.sum(-1), plain[name].weights.sum(-1).detach())
        assert (choice.weights >= 0).all() and moved.max() < 0.2
        # with one option in a slot, the sum is its weight, which therefore cannot move
        assert (moved.max() > 1e-3) == (sampler is not GDAS)


def test_the_adversary_finds_a_worse_mixture_than_chance(noise):
    space = SPACES["nb201"]()
    losses = {}
    for mode in ("random", "adversarial"):
        sampler = modified(Softmax(), WeightPerturbation(mode, start=0.1, end=0.1), space=space)
        logits = {"edges": torch.zeros(6, 5)}
        losses[mode] = float(quadratic(sampler.mixtures(logits, 0.5, quadratic)[0]))
    plain = float(quadratic(Softmax().relaxation(logits, 0.0, noise)))
    assert losses["adversarial"] > plain and losses["adversarial"] > losses["random"] + 0.5 * abs(
        plain - losses["random"]
    )


def test_the_adversary_takes_steps_of_two_epsilon_over_their_number():
    """The worst weight of one option lies inside the cube: the last of many small steps ends beside
    it, within a step. Large steps would jump from one side of the cube to the other.
    """
    epsilon, steps, worst = 0.05, 50, 0.2 + 0.02
    perturbation = WeightPerturbation("adversarial", start=epsilon, end=epsilon)
    perturbation.steps = steps
    sampler = modified(Softmax(), perturbation, space=SPACES["nb201"]())

    def distance(mixture):
        return -(mixture["edges"].weights[:, 0] - worst).abs().sum()

    (mixture,) = sampler.mixtures({"edges": torch.zeros(6, 5)}, 0.5, distance)
    assert -distance(mixture) / 6 < 2 * (2 * epsilon / steps)


def test_the_logits_learn_on_the_mixture_as_it_is(noise):
    space = SPACES["nb201"]()
    sampler = modified(Softmax(), WeightPerturbation(), space=space)
    logits = logits_of(sampler, space, noise)
    assert torch.equal(
        sampler.relaxation(logits, 0.9, noise)["edges"].weights, F.softmax(logits["edges"], -1)
    )
    assert WeightPerturbation().epsilon(0.0) == 0.03 and WeightPerturbation().epsilon(
        0.5
    ) == pytest.approx(0.165)


# --- pruning and skip dropout


@cells_alone
@pytest.mark.parametrize("sampler", [Softmax, GDAS, SNAS, DrNAS, Proxyless])
def test_what_is_pruned_is_not_run_nor_derived_nor_learnt(space, sampler, noise):
    pruned = modified(sampler(), Pruning([[0.3, 4], [0.6, 2]]), space=space)
    logits = {
        name: table.requires_grad_() for name, table in logits_of(pruned, space, noise).items()
    }
    for progress, left in ((0.2, None), (0.3, 4), (0.5, 4), (0.7, 2)):
        detached = {name: table.detach() for name, table in logits.items()}
        pruned.advance(detached, progress)
        mixtures = [
            pruned.relaxation(logits, progress, noise),
            *pruned.mixtures(detached, progress, quadratic),
        ]
        weights = torch.cat([choice.weights.flatten() for choice in mixtures[0].values()])
        slopes = torch.autograd.grad(
            (weights * torch.randn(weights.shape, generator=noise)).sum(), list(logits.values())
        )
        scores = pruned.scores(logits)
        for (name, table), slope in zip(detached.items(), slopes, strict=True):
            gone = torch.ones_like(table, dtype=torch.bool).scatter_(
                1, table.topk(left or table.shape[1]).indices, False
            )
            assert all(
                not gone[slot, o]
                for m in mixtures
                for slot, options in enumerate(m[name].active)
                for o in options
            )
            assert all(slot for mixture in mixtures for slot in mixture[name].active)
            assert (
                (scores[name][gone] == 0).all()
                and (slope[gone] == 0).all()
                and slope.isfinite().all()
            )


def test_what_was_pruned_does_not_come_back(noise):
    space = SPACES["nb201"]()
    sampler = modified(Softmax(), Pruning([[0.3, 3]]), space=space)
    first = {"edges": torch.arange(5.0).repeat(6, 1)}
    sampler.advance(first, 0.3)
    sampler.advance({"edges": -first["edges"]}, 0.9)
    assert sampler.relaxation(first, 0.9, noise)["edges"].active == ((2, 3, 4),) * 6
    assert sampler.probabilities({"edges": -first["edges"]})["edges"][0].tolist()[:2] == [0.0, 0.0]


def test_skips_are_left_out_with_the_probability_and_scaled_to_the_same_mean(noise):
    space = SPACES["nb201"]()
    dropout = SkipDropout([[0.0, 0.0], [0.4, 0.6]])
    assert [round(dropout.probability(p), 9) for p in (0.0, 0.39, 0.4, 0.7, 0.999)] == [
        0,
        0,
        0.6,
        0.3,
        0.001,
    ]
    sampler = modified(Softmax(), dropout, space=space)
    logits = {"edges": torch.zeros(6, 5)}
    drawn = [sampler.relaxation(logits, 0.4, noise)["edges"] for _ in range(500)]
    runs = torch.tensor([[1 in slot for slot in choice.active] for choice in drawn]).float()
    assert abs(float(runs.mean()) - 0.4) < 4 * (0.24 / 3000) ** 0.5
    assert all(
        choice.weights[0, 1] == pytest.approx(0.2 / 0.4)
        and choice.weights[0, 2] == pytest.approx(0.2)
        for choice in drawn
    )
    assert all(set(slot) | {1} == {0, 1, 2, 3, 4} for choice in drawn for slot in choice.active)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Pruning([[0.5, 3], [0.4, 2]]), r"modifier\.pruning\.stages=.*rising"),
        (
            lambda: Pruning([[0.5, 1]]),
            r"modifier\.pruning\.stages: 1 options: must be a whole number of at least 2",
        ),
        (lambda: Pruning([0.5]), r"modifier\.pruning\.stages=\[0\.5\]: must be pairs"),
        (
            lambda: SkipDropout([[0.0, 1.0]]),
            r"must be at least 0 and less than 1|must be at least 0 and below 1",
        ),
        (lambda: WeightPerturbation("mean"), r"modifier\.perturbation\.mode: unknown 'mean'"),
        (
            lambda: Gradient(warmups=[[0.3, 0.1]]),
            r"learner\.warmups: \[0\.3, 0\.1\]: must be a pair",
        ),
    ],
)
def test_a_setting_out_of_range_is_one_line(make, message):
    with pytest.raises(UserError, match=message):
        make()


# --- depth


def test_the_supernet_starts_anew_with_more_cells_and_what_was_pruned_stays_pruned(
    search_stage, tmp_path
):
    """P-DARTS: each depth has fresh weights, logits and a fresh learning rate. A run that is
    stopped between ends in the same bits.
    """

    def make():
        return search_stage(
            SPACES["darts"](),
            Softmax(),
            Gradient(lr=0.1),
            modifiers=[Pruning([[0.5, 3]])],
            depths=[[0.0, 0.34], [0.5, 1.0]],
        )

    stage, seen = make(), []
    step = stage.step

    def watched(index):
        rate = stage.weights.optimizer.param_groups[0]["lr"]
        step(index)
        seen.append((len(stage.supernet.layers), rate))
        return {}

    stage.step = watched
    for index in range(stage.steps):
        stage.step(index)
    assert [cells for cells, _ in seen] == [1, 1, 1, 3, 3, 3]
    # the learning rate before a step: it falls in the same way in both phases
    assert seen[1][1] == seen[4][1] > seen[2][1] == seen[5][1]
    relaxed = stage.sampler.relaxation(stage.logits, 0.9, torch.Generator())
    assert all(len(slot) == 3 for choice in relaxed.values() for slot in choice.active)
    assert stage.logits["normal"].abs().max() < 0.5  # three steps of 0.1 from zero, not six

    whole = make()
    rows = straight(whole)
    for at in (2, 4):
        resumed, resumed_rows = stopped_and_resumed(make, at, tmp_path / str(at))
        assert identical(whole.state_dict(), resumed.state_dict()) and resumed_rows == rows


@pytest.mark.parametrize("depths", [[[0.1, 1.0]], [[0.0, 0.5]], [[0.0, 0.0], [0.5, 1.0]]])
def test_depths_that_do_not_end_with_all_cells_are_one_line(search_stage, depths):
    with pytest.raises(UserError, match=r"search\.depths=.*must begin at 0 and end with all cells"):
        search_stage(SPACES["nb201"](), Softmax(), Gradient(), depths=depths)


# --- warm-up


def test_the_logits_rest_while_the_weights_warm_up(search_stage):
    """Meanwhile no images of the architecture split are used. Figures are means over the steps that
    have them.
    """
    stage = search_stage(
        SPACES["nb201"](), Softmax(), Gradient(lr=0.1, warmups=[[0.0, 0.3], [0.5, 0.7]])
    )
    moved, place = [], []
    step = stage.step

    def watched(index):
        before = stage.logits["edges"].detach().clone()
        figures = step(index)
        moved.append(not torch.equal(stage.logits["edges"], before))
        assert ("architecture_loss" in figures) == moved[-1]
        place.append(figures.get("architecture_loss"))
        return figures

    stage.step = watched
    rows = straight(stage)
    # of six steps, 0.3 is before the third, and 0.5 at the fourth
    assert moved == [False, False, True, False, False, True]
    logged = {step: figures.get("architecture_loss") for _, step, figures in rows}
    assert (
        logged[2] is None
        and logged[3] == pytest.approx(float(place[2]))
        and logged[6] == pytest.approx(float(place[5]))
    )


def test_a_policy_may_be_modified(search_stage):
    stage = search_stage(
        SPACES["nb201"](), Policy(hidden=8), ReinforceLearner(), modifiers=[AuxiliarySkip()]
    )
    assert "reward" in stage.step(0)


def test_nothing_to_modify_is_one_line(search_stage):
    from supernet.mixture import ChoiceGroup

    space = SPACES["nb201"]()
    space.groups = (ChoiceGroup("edges", 6, ("none", "a", "b", "c", "d")),)
    for modifier in (AuxiliarySkip(), SkipDropout()):
        with pytest.raises(
            UserError, match="the space nb201 has no skip option; leave this modifier out"
        ):
            modifier.begin(space, None)
    for nodes in ([], [[0], [1]]):  # no node, and nodes with one in-edge each
        space.sums = lambda group, nodes=nodes: nodes
        with pytest.raises(UserError, match="no node of the space nb201 has several in-edges"):
            EdgeNormalisation().begin(space, None)
    assert Fixed().rests(0.5) is False and Choice.path([0]).weights is None


# --- drop-path


@cells_alone
def test_drop_path_leaves_out_ever_more_options_but_no_skip_and_keeps_the_mean(space, noise):
    sampler = modified(Softmax(), OptionDropout(0.6), space=space)
    logits = logits_of(sampler, space, noise)
    plain = Softmax().relaxation(logits, 0.0, noise)
    for group in space.groups:
        skips = [option in ("none", "skip_connect") for option in group.options]
        for progress in (0.0, 0.5):
            drawn = [sampler.relaxation(logits, progress, noise)[group.name] for _ in range(400)]
            runs = torch.tensor(
                [
                    [[o in slot for o in range(len(skips))] for slot in choice.active]
                    for choice in drawn
                ]
            ).float()
            assert torch.equal(runs.mean((0, 1)) == 1, torch.tensor(skips) | (progress == 0.0))
            assert float(runs[:, :, ~torch.tensor(skips)].mean()) == pytest.approx(
                1 - 0.6 * progress, abs=0.03
            )
            means = (torch.stack([choice.weights for choice in drawn]) * runs).mean(0)
            torch.testing.assert_close(means, plain[group.name].weights, rtol=0.35, atol=0.0)


def test_the_mixture_by_which_a_search_is_measured_is_without_chance(noise):
    space = SPACES["nb201"]()
    sampler = modified(
        Softmax(), OptionDropout(0.6), SkipDropout([[0.0, 0.5]]), AuxiliarySkip(), space=space
    )
    logits = logits_of(sampler, space, noise)
    one, other = (sampler.mean(logits, 0.5)["edges"] for _ in range(2))
    assert torch.equal(one.weights, other.weights) and all(len(slot) == 5 for slot in one.active)
    added = one.weights - torch.softmax(logits["edges"], dim=-1)
    torch.testing.assert_close(added, torch.tensor([0.0, 0.5, 0.0, 0.0, 0.0]).expand(6, 5))
