"""The sums of a combination (:mod:`supernet.ops.fast.combination`) and their gradients, by the C
kernels.
"""

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from supernet.ops.fast.folding import SmallTensors, fold, unfold
from supernet.ops.fast.formula import formula
from supernet.ops.fast.native import is_bfloat16
from supernet.ops.fast.rows import products
from supernet.ops.fast.running import track
from supernet.ops.fast.wiring import Wiring


def _without_autocast(backward: Callable[..., Any]) -> Callable[..., Any]:
    """``backward`` in the precision of its forward, also where a learner computes gradients inside
    an autocast.
    """

    @functools.wraps(backward)
    def plainly(ctx: Any, *gradients: Tensor) -> Any:
        with torch.autocast(gradients[0].device.type, enabled=False):
            return backward(ctx, *gradients)

    return plainly


class Combined(torch.autograd.Function):
    """The results of a combination, in rows [pixels, C].

    Its tensors are in the order of :meth:`supernet.ops.fast.wiring.Wiring.split`: the small
    tensors, those of each source, the starts.
    """

    @staticmethod
    def forward(
        ctx: Any, wiring: Wiring, dtype: torch.dtype | None, *tensors: Tensor | None
    ) -> tuple[Tensor, ...]:
        small, sources, starts = wiring.split(tensors)
        some = sources[0][0]
        plan = wiring.plan(some.shape[-1])
        moments = some.new_empty(plan.moments_size, dtype=torch.float32)
        rows = []
        for maker, (x, *weights), places in zip(
            wiring.makers, sources, plan.made_moments, strict=True
        ):
            if maker is not None:
                second, first = (None, None) if places is None else map(moments.__getitem__, places)
                x = maker.forward(x, weights, second, first, dtype).flatten(1, 3)
            rows.append(x.to(dtype=dtype))
        pixels, channels = rows[0].shape[1:]
        images = _images(rows)
        sizes = _sizes(rows[0])
        plan.moments.run(*images, moments, *sizes, factor=1 / pixels)
        folded, observed = fold(
            wiring.layout,
            plan.folded_size,
            moments,
            SmallTensors.of(wiring.layout, small),
            channels,
        )
        track(wiring.norms, observed[0], observed[1], pixels)
        stack = rows[0].new_empty(len(starts), pixels, channels) if wiring.stacked else None
        totals = (
            [moments.new_empty(pixels, channels) for _ in starts]
            if stack is None
            else stack.unbind()
        )
        start = folded.data_ptr()
        products(totals, starts, start + plan.shift, plan.sums.at(*images, start), *sizes)
        made = [z for z, maker in zip(rows, wiring.makers, strict=True) if maker]
        ctx.save_for_backward(
            *tensors[: len(tensors) - len(starts)], *(made if not wiring.recompute else ())
        )
        ctx.wiring, ctx.dtype, ctx.moments = wiring, dtype, moments
        ctx.started = [start is not None for start in starts]
        return tuple(totals) if stack is None else (stack,)

    @staticmethod
    @_without_autocast
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        wiring = ctx.wiring
        wanted, wanted_of_sources, _ = wiring.split(ctx.needs_input_grad[2:])
        of_starts: list[Tensor | None] = [None] * len(ctx.started)
        if any(ctx.started):  # then there is a gradient for each
            of_starts = [
                gradient if started else None
                for gradient, started in zip(gradients, ctx.started, strict=True)
            ]
        if torch.is_grad_enabled():
            return None, None, *_differentiable(ctx, gradients), *of_starts
        small, sources, made = wiring.split(ctx.saved_tensors)
        made = _made_again(wiring, sources, ctx.dtype) if wiring.recompute else iter(made)
        rows = [
            source[0].to(dtype=ctx.dtype) if maker is None else next(made)
            for maker, source in zip(wiring.makers, sources, strict=True)
        ]
        each = gradients[0].unbind() if wiring.stacked else gradients
        given = [gradient.contiguous().to(dtype=ctx.dtype) for gradient in each]
        pixels, channels = rows[0].shape[1:]
        places, size = _images(rows)
        images = [*(gradient.data_ptr() for gradient in given), *places], size
        sizes = _sizes(rows[0])
        plan = wiring.plan(channels)
        work = ctx.moments.new_empty(plan.work_size)
        plan.slopes.run(*images, work, *sizes)
        of_small = unfold(
            wiring.layout,
            work,
            ctx.moments,
            SmallTensors.of(wiring.layout, small),
            channels,
            pixels,
        )
        result: list[Tensor | None] = [
            one if want else None for one, want in zip(of_small, wanted, strict=True)
        ]
        start = work.data_ptr()
        for maker, (x, *weights), want, terms, shift in zip(
            wiring.makers, sources, wanted_of_sources, plan.back, plan.backward_shift, strict=True
        ):
            if not any(want):
                result += [None] * len(want)
            elif maker is None:
                of_x = torch.empty_like(x)
                products(of_x.unbind(), (), start + shift, terms.at(*images, start), *sizes)
                result.append(of_x)
            else:
                sums = start + shift, *terms.at(*images, start)
                result += maker.backward(x, weights, sums, sizes[-1], want[0], any(want[1:]))
        return None, None, *result, *of_starts


def _images(rows: Sequence[Tensor]) -> tuple[list[int], int]:
    """The addresses of all sources, and the number of bytes of an image."""
    _, pixels, channels = rows[0].shape
    return [z.data_ptr() for z in rows], rows[0].element_size() * pixels * channels


def _sizes(rows: Tensor) -> tuple[int, int, int]:
    """The number of pixels, of channels, and whether the rows [K, pixels, C] are bfloat16."""
    _, pixels, channels = rows.shape
    return pixels, channels, is_bfloat16(rows)


def _made_again(
    wiring: Wiring, sources: Sequence[Sequence[Tensor]], dtype: torch.dtype | None
) -> Iterator[Tensor]:
    """The rows that forward made, to the same bits. Their moments are known already."""
    for maker, (x, *weights) in zip(wiring.makers, sources, strict=True):
        if maker is not None:
            yield maker.forward(x, weights, None, None, dtype).flatten(1, 3)


def _differentiable(ctx: Any, gradients: Sequence[Tensor]) -> list[Tensor | None]:
    """The gradients of all tensors but the starts, in operations that torch can differentiate
    again.
    """
    wiring = ctx.wiring
    saved = ctx.saved_tensors[: len(ctx.needs_input_grad) - 2 - len(ctx.started)]
    wanted = ctx.needs_input_grad[2 : 2 + len(saved)]
    with torch.enable_grad():
        # A view of each, so that a tensor that is given twice has two gradients.
        saved = [None if tensor is None else tensor.view_as(tensor) for tensor in saved]
        small, sources, _ = wiring.split(saved)
        inputs = [tensor for tensor, want in zip(saved, wanted, strict=True) if want]
        if not inputs:
            return [None] * len(wanted)
        sums = formula(wiring, small, sources)
    given = (gradients[0] if wiring.stacked else torch.stack(list(gradients))).to(sums.dtype)
    found = iter(
        torch.autograd.grad(sums, inputs, given, create_graph=True, materialize_grads=True)
    )
    return [next(found) if want else None for want in wanted]
