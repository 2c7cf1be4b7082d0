"""Every option, weighted by the softmax of the logits."""

from dataclasses import dataclass

from supernet.mixture import Logits, Mixture, softmax_mixture
from supernet.samplers.sampler import Loss, Sampler


@dataclass
class Softmax(Sampler):
    """DARTS (Liu et al., ICLR 2019, eq. 2): the weights train on the same relaxation as the
    logits.
    """

    def mixtures(self, logits: Logits, progress: float, loss: Loss) -> list[Mixture]:
        return [softmax_mixture(logits)]
