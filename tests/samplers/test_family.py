"""The samplers of the gradient family: their draws and their gradients are compared with integrals,
enumerations and closed forms.

In one slot of two options, a mixture is one number x in [0, 1], and the mean of any loss f(x) is an
integral.
"""

import math

import numpy as np
import pytest
import torch
from scipy import integrate, special, stats
from torch import nn
from torch.nn import functional

from supernet.errors import UserError
from supernet.samplers.drnas import DrNAS, concentration, dirichlet
from supernet.samplers.fairdarts import FairDARTS
from supernet.samplers.gdas import GDAS
from supernet.samplers.proxyless import Proxyless
from supernet.samplers.snas import SNAS
from supernet.samplers.softmax import Softmax
from tests.samplers.drawing import begun, judged
from tests.tasks import task_of
from tests.variants import SPACES, cells_alone

DRAWS = 20_000
ROW = torch.tensor([0.6, -0.3], dtype=torch.float64)


def loss(x):
    """The loss of one number or of many."""
    return (torch.sin(3 * x) if isinstance(x, torch.Tensor) else math.sin(3 * x)) + x**2


def rows(row=ROW):
    """The same slot many times; each has a draw of its own."""
    return row.repeat(DRAWS, 1).requires_grad_()


def assert_mean(samples: torch.Tensor, expected: float, size: float | None = None) -> None:
    """The mean is the expected one, within four standard errors. These must be small compared with
    the ``size`` of the expected value.
    """
    error = float(samples.std()) / math.sqrt(len(samples))
    assert abs(float(samples.mean()) - expected) < 4 * error < 0.2 * abs(size or expected)


def slope(value, at: float, step: float = 1e-4) -> float:
    return (value(at + step) - value(at - step)) / (2 * step)


def concrete_mean(f, gap: float, temperature: float) -> float:
    """E f(x) of a concrete variable of two options whose logits differ by ``gap``. The difference
    of two Gumbel noises is logistic.
    """
    return integrate.quad(
        lambda g: f(special.expit((gap + g) / temperature)) * stats.logistic.pdf(g),
        -40,
        40,
        limit=200,
    )[0]


GAP = float(ROW[0] - ROW[1])


def test_snas_has_the_gradient_of_the_expected_loss(noise):
    table = rows()
    sampler = SNAS(start=0.5, end=0.5)
    x = sampler.relaxation({"a": table}, 0.3, noise)["a"].weights[:, 0]
    loss(x).sum().backward()

    def value(gap):
        return concrete_mean(loss, gap, 0.5)

    assert_mean(loss(x).detach(), value(GAP))
    assert_mean(table.grad[:, 0], slope(value, GAP))
    torch.testing.assert_close(
        table.grad.sum(dim=1), torch.zeros(DRAWS, dtype=torch.float64), atol=1e-12, rtol=0
    )


def test_temperatures_fall_from_start_to_end(noise):
    """Measured by the noise: with the same noise, the logarithm of the ratio of two weights is
    proportional to the inverse of the temperature.
    """

    def temperature(sampler, progress):
        state = noise.get_state()
        table = torch.tensor([[0.3, 0.0]], dtype=torch.float64)
        weights = sampler.relaxation({"a": table}, progress, noise)["a"].weights
        noise.set_state(state)
        reference = SNAS(1.0, 1.0).relaxation({"a": table}, 0.0, noise)["a"].weights
        noise.set_state(state)
        return float(reference.logit()[0, 0] / weights.logit()[0, 0])

    for progress in (0.0, 0.25, 0.5, 1.0):
        assert temperature(SNAS(2.0, 0.5), progress) == pytest.approx(2.0 * 0.25**progress)
    table = torch.tensor([[0.3, 0.0]], dtype=torch.float64, requires_grad=True)
    slopes = []
    for progress in (0.0, 0.5, 1.0):
        table.grad, state = None, noise.get_state()
        GDAS(10.0, 0.1).relaxation({"a": table}, progress, noise)["a"].weights[0, 0].backward()
        noise.set_state(state)
        soft = (
            SNAS(*[10.0 - 9.9 * progress] * 2)
            .relaxation({"a": table.detach()}, 0.0, noise)["a"]
            .weights[0]
        )
        noise.set_state(state)
        slopes.append((float(table.grad[0, 0]), float(soft[0] * soft[1]) / (10.0 - 9.9 * progress)))
    assert [one for one, _ in slopes] == pytest.approx([other for _, other in slopes])


def test_gdas_draws_one_option_a_slot_from_the_softmax(noise):
    table = torch.tensor([1.0, -0.5, 0.2]).repeat(DRAWS, 1)
    choice = GDAS().choice(table, 3.0, noise)
    drawn = torch.tensor([option for (option,) in choice.active])
    counts = torch.bincount(drawn, minlength=3)
    assert stats.chisquare(counts, DRAWS * torch.softmax(table[0].double(), -1)).pvalue > 1e-4
    # exactly one, exactly zero
    assert torch.equal(choice.weights, torch.nn.functional.one_hot(drawn, 3).float())


def test_the_straight_through_gradient_of_gdas_and_its_bias(noise):
    """A loss that is linear in the weights, c_1 w_1 + c_2 w_2.

    If both options reported their slope, the mean gradient would be that of the expected relaxed
    loss. Near the temperature zero, this is the expected loss. Only the option that runs reports
    its slope, so that the mean is half of that gradient.
    """
    costs = torch.tensor([2.0, -1.0], dtype=torch.float64)
    table = rows()
    weights = GDAS().choice(table, 0.8, noise).weights
    (weights * costs).sum().backward()
    assert_mean(
        table.grad[:, 0], slope(lambda gap: concrete_mean(lambda x: 2 * x - (1 - x), gap, 0.8), GAP)
    )

    table = rows()
    choice = GDAS().choice(table, 0.05, noise)
    ran = torch.tensor([option for (option,) in choice.active])
    (choice.weights * costs).gather(1, ran[:, None]).sum().backward()
    exact = 3 * special.expit(GAP) * special.expit(-GAP)
    samples = table.grad[:, 0]
    error = float(samples.std()) / math.sqrt(DRAWS)
    assert (
        abs(float(samples.mean()) - exact / 2) < 4 * error + 0.01
        and float(samples.mean()) < 0.75 * exact
    )


@cells_alone
def test_a_step_of_gdas_costs_a_path(space, noise):
    """Both of its mixtures run one operation in each slot, and no other candidate."""
    supernet, sampler = space.supernet(task_of(3, 1)), begun(GDAS(), space)
    logits = {group.name: torch.randn(group.shape, generator=noise) for group in space.groups}
    images = torch.randn(2, 1, 8, 8, generator=noise)
    (trained,) = sampler.mixtures(logits, 0.5, judged)
    for mixture in (trained, sampler.relaxation(logits, 0.5, noise)):
        path = {name: type(choice)(choice.active) for name, choice in mixture.items()}
        assert all(len(slot) == 1 for choice in mixture.values() for slot in choice.active)
        assert ran(supernet, images, mixture) == ran(supernet, images, path)
        torch.testing.assert_close(supernet(images, mixture), supernet(images, path))
    # in training, operations that run at once are not seen by hooks
    every = ran(supernet.eval(), images, Softmax().relaxation(logits, 0.0, noise))
    assert len(ran(supernet, images, path)) < len(every)


def ran(supernet: nn.Module, images, mixture) -> list[str]:
    """The names of the convolutions and poolings that a mixture runs."""
    names, handles = [], []
    for name, module in supernet.named_modules():
        if isinstance(module, nn.Conv2d | nn.BatchNorm2d):
            handles.append(module.register_forward_hook(lambda *_, name=name: names.append(name)))
    supernet(images, mixture)
    for handle in handles:
        handle.remove()
    return names


def test_dirichlet_draws_have_the_moments_and_densities_of_theirs(noise):
    concentrations = torch.tensor([0.4, 1.0, 2.6], dtype=torch.float64)
    drawn = dirichlet(concentrations.repeat(DRAWS, 1), noise)
    torch.testing.assert_close(drawn.sum(dim=1), torch.ones(DRAWS, dtype=torch.float64))
    for option, alpha in enumerate(concentrations.tolist()):
        assert (
            stats.kstest(drawn[:, option].numpy(), stats.beta(alpha, 4.0 - alpha).cdf).pvalue > 1e-4
        )


def published_concentration(table: torch.Tensor) -> torch.Tensor:
    """The formula of the paper (section 3.1) and of the authors' code, with torch's functions."""
    return functional.elu(table) + 1


def test_the_concentration_of_drnas_is_the_published_one_and_so_is_its_slope():
    """On both sides of zero and at zero. In float32 ``elu + 1`` rounds to zero from -17 on; there a
    small value remains.
    """
    table = torch.linspace(-15, 15, 601, dtype=torch.float64).requires_grad_()
    published = published_concentration(table)
    torch.testing.assert_close(concentration(table), published, rtol=1e-8, atol=1e-15)
    slopes = [
        torch.autograd.grad(values.sum(), table)[0] for values in (concentration(table), published)
    ]
    torch.testing.assert_close(*slopes)
    low = torch.tensor([-20.0, -80.0])
    assert (published_concentration(low) == 0).all() and (concentration(low) > 0).all()
    assert concentration(torch.tensor([-torch.inf])) == 0


def test_what_drnas_derives_by_is_the_mean_of_the_distribution_and_so_is_its_slope(noise):
    """Rows of logits of both signs. Compared with scipy's Dirichlet distribution of the published
    concentrations, and with central differences of its mean.
    """
    table = torch.randn(20, 5, generator=noise, dtype=torch.float64).mul(1.5).requires_grad_()
    assert (table > 0.5).any() and (table < -0.5).any()
    (probabilities,) = DrNAS().probabilities({"a": table}).values()

    def mean(rows) -> np.ndarray:
        return np.array([stats.dirichlet(row).mean() for row in published_concentration(rows)])

    np.testing.assert_allclose(probabilities.detach(), mean(table.detach()), rtol=1e-9)
    (scores,) = DrNAS().scores({"a": table}).values()
    np.testing.assert_allclose(scores, mean(table.detach()), rtol=1e-9)
    costs = torch.randn(20, 5, generator=noise, dtype=torch.float64)
    (slope,) = torch.autograd.grad((probabilities * costs).sum(), table)
    for option in range(5):
        step = torch.zeros(5, dtype=torch.float64)
        step[option] = 1e-5
        ahead, behind = (mean(table.detach() + sign * step) for sign in (1, -1))
        expected = ((ahead - behind) * costs.numpy()).sum(axis=1) / 2e-5
        np.testing.assert_allclose(slope[:, option], expected, rtol=1e-5, atol=1e-8)


def test_drnas_draws_from_the_dirichlet_distribution_of_the_published_concentrations(noise):
    """The weight of one option is compared with its marginal, a beta distribution, by scipy."""
    row = torch.tensor([1.3, 0.4, -0.7], dtype=torch.float64)
    drawn = DrNAS().relaxation({"a": row.repeat(DRAWS, 1)}, 0.0, noise)["a"].weights
    concentrations = published_concentration(row).tolist()
    for option, own in enumerate(concentrations):
        marginal = stats.beta(own, sum(concentrations) - own)
        assert stats.kstest(drawn[:, option].numpy(), marginal.cdf).pvalue > 1e-4


def test_drnas_has_the_gradient_of_the_expected_loss(noise):
    table = rows()
    x = DrNAS().relaxation({"a": table}, 0.3, noise)["a"].weights[:, 0]
    loss(x).sum().backward()

    def value(logit):
        a, b = published_concentration(torch.tensor([logit, ROW[1]], dtype=torch.float64)).tolist()
        return integrate.quad(lambda x: loss(x) * stats.beta.pdf(x, a, b), 0, 1, limit=200)[0]

    assert_mean(loss(x).detach(), value(float(ROW[0])))
    assert_mean(table.grad[:, 0], slope(value, float(ROW[0])))


def test_each_gamma_moves_along_its_quantile(noise):
    """The draw is a function of its concentration. Compared with a central difference of the
    inverse distribution function, by scipy.
    """
    table = torch.linspace(0.3, 4.0, 20, dtype=torch.float64).requires_grad_()
    drawn = torch._standard_gamma(table, noise)
    drawn.sum().backward()
    alphas, values = table.detach().numpy(), drawn.detach().numpy()
    quantiles = special.gammainc(alphas, values)
    moved = (
        special.gammaincinv(alphas + 1e-5, quantiles)
        - special.gammaincinv(alphas - 1e-5, quantiles)
    ) / 2e-5
    torch.testing.assert_close(table.grad, torch.from_numpy(moved), rtol=1e-3, atol=1e-6)


def test_a_dirichlet_draw_is_finite_at_extreme_logits_and_never_what_was_pruned(noise):
    table = torch.tensor(
        [[-30.0, -25.0, -20.0], [20.0, -torch.inf, 0.0], [0.0, 0.0, 0.0]]
    ).requires_grad_()
    weights = DrNAS().relaxation({"a": table}, 0.0, noise)["a"].weights
    (weights * torch.randn(weights.shape, generator=noise)).sum().backward()
    assert weights.isfinite().all() and table.grad.isfinite().all()
    torch.testing.assert_close(weights.sum(1), torch.ones(3))
    assert weights[1, 1] == 0 == table.grad[1, 1]


@pytest.mark.parametrize("distance", ["l2", "kl"])
def test_the_distance_of_drnas_from_the_uniform_distribution(distance, noise):
    """KL is compared with its integral for two options; the gradient of l2 with Adam's weight
    decay.
    """
    table = ROW.clone()[None].requires_grad_()
    sampler = DrNAS(distance, distance_weight=0.5)
    value = sampler.penalty({"a": table}, 0.5)
    value.backward()
    if distance == "l2":
        torch.testing.assert_close(table.grad, 0.5 * table.detach())
    else:
        beta = stats.beta(*published_concentration(ROW).tolist())
        expected = integrate.quad(lambda x: beta.pdf(x) * beta.logpdf(x), 0, 1)[0]
        assert float(value.detach()) == pytest.approx(0.5 * expected, rel=1e-5)
    assert sampler.penalty({"a": torch.zeros(3, 4)}, 0.5) == 0
    pruned = sampler.penalty({"a": torch.cat([ROW, torch.tensor([-torch.inf])])[None]}, 0.5)
    torch.testing.assert_close(pruned, value.detach())
    with pytest.raises(UserError, match=r"sampler\.distance: unknown 'l3'; choose one of l2, kl"):
        DrNAS("l3")


def test_proxyless_opens_two_gates_a_slot_with_the_gradient_of_the_choice_between_them(
    noise,
):
    """The mean gradient of a linear loss is compared with the sum over all pairs. Which pairs are
    drawn, and which option of a pair runs, is compared by chi-squared.
    """
    row, costs = (
        torch.tensor([0.8, -0.4, 0.1], dtype=torch.float64),
        torch.tensor([1.0, -2.0, 2.5], dtype=torch.float64),
    )
    table = rows(row)
    choice = Proxyless().relaxation({"a": table}, 0.0, noise)["a"]
    (choice.weights * costs).sum().backward()
    p = torch.softmax(row, -1)
    probability, expected = {}, torch.zeros(3, dtype=torch.float64)
    for i in range(3):
        for j in range(i):
            probability[j, i] = float(p[i] * p[j] / (1 - p[i]) + p[i] * p[j] / (1 - p[j]))
            share = p[i] / (p[i] + p[j])
            pull = (costs[i] - costs[j]) * share * (1 - share)
            expected[i] += probability[j, i] * pull
            expected[j] -= probability[j, i] * pull
    for option in range(3):
        assert_mean(
            table.grad[:, option], float(expected[option]), size=float(expected.abs().max())
        )
    pairs = [tuple(sorted(slot)) for slot in choice.active]
    assert (
        stats.chisquare(
            [pairs.count(pair) for pair in probability], [DRAWS * q for q in probability.values()]
        ).pvalue
        > 1e-4
    )
    on = choice.weights.detach().argmax(dim=1)
    assert torch.equal(choice.weights.detach(), torch.nn.functional.one_hot(on, 3).double())
    chosen = sum(int(o) == 0 for o, pair in zip(on.tolist(), pairs, strict=True) if pair == (0, 1))
    assert stats.binomtest(chosen, pairs.count((0, 1)), float(p[0] / (p[0] + p[1]))).pvalue > 1e-4


def test_proxyless_for_two_options_has_the_exact_gradient_of_a_linear_loss(noise):
    table = rows()
    (
        Proxyless().relaxation({"a": table}, 0.0, noise)["a"].weights * torch.tensor([2.0, -1.0])
    ).sum().backward()
    exact = 3 * special.expit(GAP) * special.expit(-GAP)
    torch.testing.assert_close(table.grad[:, 0], torch.full((DRAWS,), exact, dtype=torch.float64))


def test_proxyless_trains_paths_and_leaves_what_was_not_drawn_as_probable_as_it_was(noise):
    space = SPACES["nb201"]()
    sampler = begun(Proxyless(), space)
    (mixture,) = sampler.mixtures(
        {"edges": torch.tensor([[1.0, 0.0, -1.0]]).repeat(DRAWS, 1)}, 0.0, judged
    )
    counts = torch.bincount(
        torch.tensor([option for (option,) in mixture["edges"].active]), minlength=3
    )
    assert (
        stats.chisquare(
            counts, DRAWS * torch.softmax(torch.tensor([1.0, 0.0, -1.0]).double(), -1)
        ).pvalue
        > 1e-4
    )
    assert (mixture["edges"].weights == 1).all()

    before = {"edges": torch.randn(6, 5, generator=noise, dtype=torch.float64)}
    after = {"edges": before["edges"].clone()}
    for slot in range(6):
        after["edges"][slot, [slot % 5, (slot + 2) % 5]] += torch.tensor(
            [0.7, -0.2], dtype=torch.float64
        )
    moved = after["edges"] != before["edges"]
    raw = after["edges"].clone()
    sampler.settle(after, before)
    old, new = before["edges"].softmax(-1), after["edges"].softmax(-1)
    torch.testing.assert_close(new[~moved], old[~moved])
    ratios = [
        (table[moved].view(6, 2)[:, 0] - table[moved].view(6, 2)[:, 1])
        for table in (raw, after["edges"])
    ]
    torch.testing.assert_close(*ratios)  # the odds between these two stay the same


def test_fairdarts_weighs_by_sigmoids_and_pulls_them_to_zero_or_one(noise):
    """The zero-one loss is compared with a loop. ``none`` is left out of it, and is derived if all
    other options are below one half.
    """
    space = SPACES["nb201"]()
    sampler = begun(FairDARTS(zero_one_weight=3.0), space)
    table = torch.randn(6, 5, generator=noise).requires_grad_()
    (mixture,) = sampler.mixtures({"edges": table.detach()}, 0.0, judged)
    torch.testing.assert_close(mixture["edges"].weights, 1 / (1 + (-table.detach()).exp()))
    penalty = sampler.penalty({"edges": table}, 0.5)
    squares = [(1 / (1 + math.exp(-v)) - 0.5) ** 2 for row in table.tolist() for v in row[1:]]
    assert float(penalty.detach()) == pytest.approx(-3.0 * sum(squares) / len(squares), rel=1e-5)
    penalty.backward()
    # downhill is away from zero
    assert (table.grad[:, 0] == 0).all()
    assert (table.grad[:, 1:].sign() == -table[:, 1:].sign()).all()
    low = torch.full((6, 5), -1.0)
    low[:, 0], low[2, 3] = 0.001, 1.0
    assert space.derive(sampler.scores({"edges": low}))["edges"] == (
        "none",
        "none",
        "nor_conv_3x3",
        "none",
        "none",
        "none",
    )


@pytest.mark.parametrize("kind", [GDAS, SNAS])
def test_a_temperature_of_zero_is_one_line(kind):
    with pytest.raises(UserError, match=r"sampler\.end=0: must be greater than 0"):
        kind(end=0)
