"""Scores of networks that are not trained: what a batch of inputs shows of their random weights.

They cost about as much as a step of training, and none of them reads labels. Abdelfattah et al.
(ICLR 2021) and White et al. (ICLR 2022 blog track) compare them.
"""

import copy
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

Score = Callable[[nn.Module, Tensor], float]

IMAGES = 64  # of the batch
LOWEST = -1e9  # the score of a network whose output does not depend on its input
ACTIVATIONS = nn.ReLU, nn.ReLU6, nn.SiLU, nn.Hardswish, nn.GELU
STABILISER = 1e-5  # of the eigenvalues of the correlations of Jacobians, as in the authors' code


def synflow(network: nn.Module, images: Tensor) -> float:
    """Synaptic flow (Tanaka et al., NeurIPS 2020; as a score of networks: Abdelfattah et al., ICLR
    2021): the logarithm of the sum of ``|weight · gradient|`` for an image of ones, if every weight
    is replaced by its absolute value.

    Then all numbers are positive, and a ReLU passes them on. BatchNorms are made to pass on what
    they read, and so are all activations, because those with an upper bound would stop the flow. In
    float64, because the sums grow with the depth.
    """
    network = copy.deepcopy(network).double().eval()
    for name, module in list(network.named_modules()):
        if isinstance(module, (_BatchNorm, *ACTIVATIONS)):
            network.set_submodule(name, nn.Identity())
    weights = list(network.parameters())
    with torch.no_grad():
        for weight in weights:
            weight.abs_()
    flow = network(torch.ones_like(images[:1], dtype=torch.float64)).sum()
    gradients = torch.autograd.grad(flow, weights, allow_unused=True)
    products = [
        (weight * gradient).detach().abs().sum()
        for weight, gradient in zip(weights, gradients, strict=True)
        if gradient is not None
    ]
    return max(LOWEST, float(torch.stack(products).sum().log()))


def naswot(network: nn.Module, images: Tensor) -> float:
    """NASWOT (Mellor et al., ICML 2021, section 3): the logarithm of the determinant of a kernel of
    the ``images``. The kernel of two images is the number of activations that are positive for both
    or for neither.
    """
    kernel = torch.zeros(len(images), len(images), dtype=torch.float64)

    def count(module: nn.Module, inputs: object, output: Tensor) -> None:
        codes = (output > 0).flatten(1).double()
        kernel.add_(codes @ codes.T + (1 - codes) @ (1 - codes).T)

    hooks = [
        module.register_forward_hook(count)
        for module in network.modules()
        if isinstance(module, ACTIVATIONS)
    ]
    with torch.no_grad():
        network.train()(images)
    for hook in hooks:
        hook.remove()
    return max(LOWEST, float(torch.linalg.slogdet(kernel).logabsdet))


def jacobian_covariance(network: nn.Module, images: Tensor) -> float:
    """Covariance of Jacobians (Mellor et al., arXiv 2006.04647v1, section 3): how different the
    gradients of the outputs with respect to each of the ``images`` are. With the eigenvalues v of
    the matrix of their correlations, the score is ``-sum(log(v + k) + 1 / (v + k))``.
    """
    images = images.clone().requires_grad_()
    (jacobian,) = torch.autograd.grad(network.train()(images).sum(), images, allow_unused=True)
    if jacobian is None or not jacobian.flatten(1).std(dim=1).all():
        return LOWEST
    eigenvalues = torch.linalg.eigvalsh(torch.corrcoef(jacobian.flatten(1).double()))
    stable = eigenvalues + STABILISER
    return max(LOWEST, float(-(stable.log() + 1 / stable).sum()))


SCORES: Mapping[str, Score] = {
    "synflow": synflow,
    "naswot": naswot,
    "jacobian covariance": jacobian_covariance,
}
VOTERS = "synflow", "naswot"  # beside minus the loss with inherited weights
INITIALISATIONS = 4  # of each network, each with other images: a score is the median over them


def vote(
    predictors: Sequence[Sequence[float]] | np.ndarray,
    reference: Sequence[Sequence[float]] | np.ndarray | None = None,
) -> np.ndarray:
    """The mean, over the ``predictors`` [predictors, architectures], of what each says of the
    architectures on one scale [architectures].

    The scale of a predictor is that of the ``reference`` [predictors, other architectures], or
    without one of the architectures themselves: the median is 0, and the quartiles are 1 apart. A
    few extreme scores change neither. A predictor whose quartiles are equal says nothing.
    """
    scores = np.asarray(predictors, dtype=float)
    low, middle, high = np.percentile(
        scores if reference is None else reference, [25, 50, 75], axis=1
    )[..., None]
    spread = np.where(high > low, high - low, np.inf)
    return np.mean((scores - middle) / spread, axis=0)
