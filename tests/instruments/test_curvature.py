"""The largest eigenvalue, compared with dense matrices."""

import pytest
import torch
from torch import nn
from torch.autograd.functional import hessian
from torch.nn import functional as F

from supernet.instruments.curvature import dominant_eigenvalue, largest_eigenvalue
from supernet.mixture import softmax_mixture
from tests.tasks import task_of
from tests.variants import SPACES


@pytest.mark.parametrize(
    "spectrum", [[-3.0, -2.0, -1.0], [0.0] * 6, [5.0, 4.99, -7.0, 0.0, 0.0, 1.0], [2.0] * 4]
)
def test_of_a_matrix_whose_eigenvalues_are_known(spectrum, noise):
    """The largest may be negative. The eigenvalues may be zeros, equal or close, and one with the
    other sign may be larger in size.
    """
    size = len(spectrum)
    rotation = torch.linalg.qr(torch.randn(size, size, generator=noise, dtype=torch.float64)).Q
    matrix = rotation @ torch.diag(torch.tensor(spectrum, dtype=torch.float64)) @ rotation.T
    start = torch.randn(size, generator=noise, dtype=torch.float64)
    assert largest_eigenvalue(lambda v: matrix @ v, start, 1e-12) == pytest.approx(
        max(spectrum), abs=1e-9
    )


def test_of_a_large_matrix_it_needs_few_products(noise):
    root = torch.randn(200, 200, generator=noise, dtype=torch.float64)
    matrix, products = root @ root.T / 200, []

    def product(vector):
        products.append(vector)
        return matrix @ vector

    found = largest_eigenvalue(
        product, torch.randn(200, generator=noise, dtype=torch.float64), 1e-2
    )
    assert (
        found == pytest.approx(float(torch.linalg.eigvalsh(matrix)[-1]), rel=1e-3)
        and len(products) < 60
    )


class Attentive(nn.Module):
    """Attention whose queries depend on a mixture."""

    def forward(self, x, mixture):
        query = x * mixture["width"].weights[0]
        return F.scaled_dot_product_attention(query, x, x).mean(1)


def test_of_a_supernet_with_fused_attention(noise):
    """torch's fused kernel has no second derivative."""
    logits = {"width": torch.randn(1, 3, generator=noise, dtype=torch.float64)}
    x, labels = torch.randn(6, 4, 3, generator=noise, dtype=torch.float64), torch.arange(6) % 3
    found = dominant_eigenvalue(
        Attentive(), logits, softmax_mixture, F.cross_entropy, [(x, labels)], noise, 1e-9
    )

    def loss(flat):
        query = x * flat.softmax(-1)
        scores = (query @ x.transpose(-2, -1) / 3**0.5).softmax(-1)
        return F.cross_entropy((scores @ x).mean(1), labels)

    dense = hessian(loss, logits["width"][0])
    assert found == pytest.approx(float(torch.linalg.eigvalsh(dense)[-1]), rel=1e-6)


def test_of_a_supernet_it_is_that_of_the_dense_hessian(noise):
    """In float64, for the 30 logits of NAS-Bench-201, with the BatchNorm statistics of the batch.
    It changes nothing in the supernet.
    """
    space = SPACES["nb201"]()
    torch.manual_seed(0)
    supernet = space.supernet(task_of(3, 1)).double()
    logits = {
        g.name: torch.randn(g.shape, generator=noise, dtype=torch.float64) for g in space.groups
    }
    images, labels = (
        torch.randn(6, 1, 8, 8, generator=noise, dtype=torch.float64),
        torch.arange(6) % 3,
    )
    before = {name: tensor.clone() for name, tensor in supernet.state_dict().items()}

    halves = [(images[:4], labels[:4]), (images[4:], labels[4:])]

    def found(tolerance):
        supernet.eval()
        start = torch.Generator().manual_seed(1)
        return dominant_eigenvalue(
            supernet, logits, softmax_mixture, F.cross_entropy, halves, start, tolerance
        )

    exact, rough = found(1e-9), found(1e-2)
    assert not supernet.training and all(
        torch.equal(before[n], t) for n, t in supernet.state_dict().items()
    )
    assert all(weight.grad is None for weight in supernet.parameters())

    def loss(flat):
        supernet.train()
        mixture = softmax_mixture({"edges": flat.view(6, 5)})
        return (
            sum(
                F.cross_entropy(supernet(x, mixture), y, reduction="sum")
                for x, y in ((images[:4], labels[:4]), (images[4:], labels[4:]))
            )
            / 6
        )

    dense = torch.linalg.eigvalsh(hessian(loss, logits["edges"].flatten()))
    assert exact == pytest.approx(float(dense[-1]), rel=1e-7) and float(dense[-1]) > 1e-3
    assert rough == pytest.approx(exact, rel=1e-2)
