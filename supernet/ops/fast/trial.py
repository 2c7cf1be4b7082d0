"""Tries the C++ kernels on small images before they are used, and refuses them if torch computes
something else.

A compiler, or the processor that its code is for, may be wrong. All kernels run here, on channels
that vectors of every width are needed for. It takes a few hundredths of a second, once a process.
"""

import warnings
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor, nn

from supernet.ops import DilConv, Pool, SepConv
from supernet.ops.fast.native import kernels
from supernet.ops.fast.program import Program

# channels and type of the images -> the error that is allowed, relative to the largest value.
# Rounding alone gives a hundredth of that.
FORMS = {(16 + 8 + 4 + 1, torch.float32): 1e-4, (32, torch.bfloat16): 0.3}


def passed() -> bool:
    """Whether the kernels compute what torch computes. If not, a warning says so."""
    for (channels, dtype), error in FORMS.items():
        if dtype == torch.bfloat16 and not kernels().multiplies_halves():
            continue
        # In a thread of its own: none of the contexts that the first step is inside of hold there.
        with ThreadPoolExecutor(1) as thread:
            both = thread.submit(results, channels, dtype).result()
        for what, (found, expected) in both.items():
            # A NaN is not below anything.
            if not (found - expected).abs().max() <= error * expected.abs().max():
                warnings.warn(
                    f"the C++ kernels in {kernels()._name} compute another {what} than torch, and "
                    "are not used; remove that file, or set SUPERNET_MARCH to another processor",
                    RuntimeWarning,
                    stacklevel=2,
                )
                return False
    return True


def results(channels: int, dtype: torch.dtype) -> dict[str, tuple[Tensor, Tensor]]:
    """Outputs and gradients of a few weighted operations, by the kernels and by torch."""
    noise = torch.Generator().manual_seed(0)
    with torch.device("meta"):  # so that nothing draws from torch's own generator
        operations = [
            SepConv(channels, 3),
            DilConv(channels, 5),
            SepConv(channels, 5),
            Pool(channels, "max", norm=True),
            Pool(channels, "avg"),
            nn.Identity(),
        ]
    for operation in operations:
        operation.to_empty(device="cpu")
        for parameter in operation.parameters():
            nn.init.normal_(parameter, generator=noise)
    names = [
        f"{k}.{name}" for k, each in enumerate(operations) for name, _ in each.named_parameters()
    ]
    parameters = [weight for operation in operations for weight in operation.parameters()]
    x = torch.randn(3, channels, 6, 7, generator=noise).requires_grad_()
    weights = torch.rand(len(operations), generator=noise).requires_grad_()
    slope = torch.randn(x.shape, generator=noise)
    program = Program([(0, operation) for operation in operations], x.device)
    outputs = (
        program.run(x, weights, [None], dtype)[0],
        sum(weight * operation(x) for weight, operation in zip(weights, operations, strict=True)),
    )
    found, expected = (values(output, slope, [x, weights, *parameters]) for output in outputs)
    what = ["output", "gradient of images", "gradient of weights", *names]
    return dict(zip(what, zip(found, expected, strict=True), strict=True))


def values(output: Tensor, slope: Tensor, leaves: list[Tensor]) -> list[Tensor]:
    """The output, and the gradients of the leaves where that of the output is ``slope``.

    By ``backward``, because counters of operations hook all modules, and their hooks refuse
    ``torch.autograd.grad``.
    """
    for leaf in leaves:
        leaf.grad = None
    output.backward(slope, retain_graph=True)
    return [output.detach(), *(leaf.grad for leaf in leaves if leaf.grad is not None)]
