"""Scores of networks that are not trained: what one batch through random weights says.

They cost about as much as one step of training. None of them knows the labels. White et al. (ICLR
2021 workshop on NAS) and Abdelfattah et al. (ICLR 2021) compare them.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

Score = Callable[[nn.Module, Tensor], float]

STABILISER = 1e-5  # of the eigenvalues of the correlation of Jacobians, as its authors' code has it


def synflow(network: nn.Module, images: Tensor) -> float:
    """Synaptic flow (Tanaka et al., NeurIPS 2020; as a score of networks: Abdelfattah et al., ICLR
    2021): the logarithm of the sum of ``|weight · gradient|``, for an image of ones, if every
    weight is replaced by its absolute value and BatchNorms pass on what they read.

    In float64, because the sums grow with the depth.
    """
    network = network.double().eval()
    for module in network.modules():
        if isinstance(module, _BatchNorm):
            module.forward = passed_on  # type: ignore[method-assign]
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.abs_()
    one = torch.ones_like(images[:1], dtype=torch.float64)
    weights = [parameter for parameter in network.parameters() if parameter.requires_grad]
    gradients = torch.autograd.grad(network(one).sum(), weights, allow_unused=True)
    flow = sum(
        (weight * gradient).abs().sum()
        for weight, gradient in zip(weights, gradients, strict=True)
        if gradient is not None
    )
    return float(torch.log(torch.as_tensor(flow)).detach())


def passed_on(x: Tensor) -> Tensor:
    return x


def naswot(network: nn.Module, images: Tensor) -> float:
    """NASWOT (Mellor et al., ICML 2021, section 3): the logarithm of the determinant of a kernel
    between the ``images``. The kernel of two images is the number of ReLUs that both pass or both
    stop.
    """
    codes: list[Tensor] = []
    hooks = [
        module.register_forward_hook(
            lambda module, inputs, output: codes.append((output > 0).flatten(1).double())
        )
        for module in network.modules()
        if isinstance(module, nn.ReLU)
    ]
    with torch.no_grad():
        network.train()(images)
    for hook in hooks:
        hook.remove()
    kernel = sum(code @ code.T + (1 - code) @ (1 - code).T for code in codes)
    return float(torch.linalg.slogdet(torch.as_tensor(kernel)).logabsdet)


def jacobian_covariance(network: nn.Module, images: Tensor) -> float:
    """Covariance of Jacobians (Mellor et al., arXiv 2006.04647v1, section 3): how different the
    gradients of the outputs with respect to each of the ``images`` are. With the eigenvalues v of
    the matrix of their correlations, the score is ``-sum(log(v + k) + 1 / (v + k))``.
    """
    images = images.clone().requires_grad_()
    (jacobian,) = torch.autograd.grad(network.train()(images).sum(), images)
    eigenvalues = torch.linalg.eigvalsh(torch.corrcoef(jacobian.flatten(1).double()))
    stable = eigenvalues + STABILISER
    return float(-(stable.log() + 1 / stable).sum())


SCORES: dict[str, Score] = {
    "synflow": synflow,
    "naswot": naswot,
    "jacobian covariance": jacobian_covariance,
}
