"""Accuracy and loss over a fixed list of batches.

The network is a trained one, or a supernet that runs one mixture with its own weights. The latter
accuracy is called *inherited*.
"""

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from supernet.mixture import Mixture
from supernet.task import Task

Batch = tuple[Tensor, Tensor]
# right answers, losses, the number of answers, and the number of targets
Sums = tuple[Tensor, Tensor, int, int]

# The size of the parts of a batch that are judged on a CPU. On larger parts, the outputs of a layer
# do not fit into the cache, and the system gives and takes back their memory each time. On smaller
# parts, the cost of the calls counts.
PIXELS, FEWEST = 2**15, 8  # of all images of a part together; images of a part, however large


@dataclass(frozen=True)
class Judgement:
    """The result of judging a network.

    ``accuracy`` is the metric of the task, from 0 to 1, and ``loss`` its mean loss. Both are means
    over ``images`` targets. ``value`` is what a searcher maximises, if it is not the accuracy
    (``judge.by``).
    """

    accuracy: float
    loss: float
    images: int
    value: float | None = None

    @property
    def goodness(self) -> float:
        """What a searcher maximises."""
        return self.accuracy if self.value is None else self.value

    @property
    def standard_error(self) -> float:
        """The standard error of the accuracy that comes from the random choice of the images."""
        return math.sqrt(self.accuracy * (1 - self.accuracy) / self.images)


def mean_judgement(each: Sequence[Judgement]) -> Judgement:
    """The mean of what several networks say about the same images."""
    count = len(each)
    return Judgement(
        sum(one.accuracy for one in each) / count,
        sum(one.loss for one in each) / count,
        each[0].images,
    )


def evaluate(
    network: Callable[[Tensor], Tensor], batches: Iterable[Batch], task: Task, workers: int = 1
) -> Judgement:
    """Judges ``network`` by the metric and the loss of ``task``.

    The mode of the network (training or evaluation) is not changed; the caller sets it. Up to
    ``workers`` batches are computed at once, in threads. The network must then be in evaluation
    mode. The number of workers does not change the bits of the result.
    """

    def judged(batch: Batch) -> Sums:
        images, labels = batch
        with torch.no_grad():  # here, because this holds for one thread alone
            outputs = network(images).float()
            right = task.right(outputs, labels)
            loss = task.loss(outputs, labels, reduction="sum")
            return right.sum(), loss, right.numel(), labels.numel()

    # The sums are taken on the host at the end, because not every device has float64.
    right, losses, counts, targets = zip(*mapped(judged, batches, workers), strict=True)
    count = sum(counts)
    return Judgement(
        float(torch.stack(right).sum()) / count,
        float(torch.stack(losses).cpu().double().sum()) / sum(targets),
        count,
    )


def mapped(
    judged: Callable[[Batch], Sums], batches: Iterable[Batch], workers: int
) -> Iterator[Sums]:
    """Yields ``judged(batch)`` of each batch, in their order. Up to ``workers`` threads compute
    them, each with as many threads of torch as this one has. Few batches are taken ahead.
    """
    if workers == 1:
        yield from map(judged, batches)
        return
    threads = torch.get_num_threads()  # otherwise a new thread would have torch's default
    with ThreadPoolExecutor(
        workers, initializer=torch.set_num_threads, initargs=(threads,)
    ) as pool:
        ahead: deque[Future[Sums]] = deque()
        for batch in batches:
            ahead.append(pool.submit(judged, batch))
            if len(ahead) > workers:
                yield ahead.popleft().result()
        for future in ahead:
            yield future.result()


def in_parts(batches: Iterable[Batch]) -> Iterator[Batch]:
    """The same images in smaller batches, if they are on the CPU. In evaluation mode the outputs of
    a network are the same.
    """
    for images, labels in batches:
        size = len(images)
        if images.device.type == "cpu":
            size = max(FEWEST, PIXELS // math.prod(images.shape[2:]))
        yield from zip(images.split(size), labels.split(size), strict=True)


def recalibrate(supernet: nn.Module, mixture: Mixture, batches: Iterable[Tensor]) -> None:
    """Replaces the BatchNorm statistics by those of ``mixture`` over ``batches`` of images (Guo et
    al. 2020, section 3.3).

    After training, the statistics are averages over many mixtures and are right for none of them.
    The new ones are the plain mean over the batches. The statistics of options that this mixture
    does not run stay as they were.
    """
    norms = [module for module in supernet.modules() if isinstance(module, _BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = None  # in torch this means a cumulative mean
        assert norm.num_batches_tracked is not None  # all norms of a supernet track statistics
        norm.num_batches_tracked.zero_()  # so that the first batch replaces the old statistics
    mode = supernet.training
    supernet.train()
    try:
        with torch.no_grad():
            for images in batches:
                supernet(images, mixture)
    finally:
        supernet.train(mode)
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum


def inherited_accuracy(
    supernet: nn.Module,
    mixture: Mixture,
    batches: Iterable[tuple[Tensor, Tensor]],
    task: Task,
    calibration: Iterable[Tensor] | None = None,
    workers: int = 1,
) -> Judgement:
    """Judges a mixture with the weights of the supernet. For an architecture the mixture is its
    path.

    ``calibration`` are batches of training images, on which the BatchNorm statistics are
    recalibrated first; with ``None`` the statistics stay as training left them. Up to ``workers``
    threads judge. Afterwards the supernet is as it was before.
    """
    before: dict[str, Tensor] = {}  # evaluation mode changes no buffer
    if calibration is not None:
        before = {name: buffer.clone() for name, buffer in supernet.named_buffers()}
    mode = supernet.training
    try:
        if calibration is not None:
            recalibrate(supernet, mixture, calibration)
        supernet.eval()
        return evaluate(lambda images: supernet(images, mixture), in_parts(batches), task, workers)
    finally:
        supernet.train(mode)
        for name, kept in before.items():
            supernet.get_buffer(name).copy_(kept)
