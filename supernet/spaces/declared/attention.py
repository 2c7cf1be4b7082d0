"""Attention whose number of heads, width of a head and embedding can be choices."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from supernet.spaces.declared.choices import Size, active, cut, superposed
from supernet.spaces.declared.convolutions import share_of
from supernet.spaces.declared.layer import META, Elastic, Kept, Parts, scaled

READS = ("query", "key", "value")


class MultiheadAttention(Elastic):
    """Self-attention of several heads, ``[..., length, embed_dim] -> [..., length, embed_dim]``
    (Vaswani et al., NeurIPS 2017, section 3.2.2).

    ``embed_dim``, ``num_heads`` and ``head_dim`` can be choices. Without ``head_dim`` a head has
    ``embed_dim // num_heads`` channels. Fewer heads are the first heads; a narrower head has the
    first channels of each head. With ``is_causal`` a position sees only itself and those before.

    In a mixture, the projections are superposed, and the scores are multiplied by the mean of the
    factors ``1 / sqrt(head_dim)``. It is then computed without torch's fused kernels.

    The plain network has four linear layers around torch's ``scaled_dot_product_attention``, as a
    ``torch.fx.GraphModule``. torch's own ``nn.MultiheadAttention`` cannot have a number of heads
    and a width of a head whose product is not the embedding.
    """

    def __init__(
        self,
        embed_dim: int | Size,
        num_heads: int | Size,
        head_dim: int | Size | None = None,
        bias: bool = True,
        is_causal: bool = False,
    ):
        super().__init__()
        head_dim = embed_dim // num_heads if head_dim is None else head_dim
        self.declare(embed_dim=embed_dim, num_heads=num_heads, head_dim=head_dim)
        self.is_causal = is_causal
        width, *heads = self.largest(embed_dim=embed_dim, num_heads=num_heads, head_dim=head_dim)
        self.heads = heads[0], heads[1]
        inner = heads[0] * heads[1]
        self.query, self.key, self.value = (nn.Linear(width, inner, bias) for _ in range(3))
        self.output = nn.Linear(inner, width, bias)

    def parts(self, read: int) -> Parts:
        """Weights [heads, width of a head, read] and biases [heads, width of a head] of the three
        projections, those of the output, and the factor of the scores.
        """
        found = active(self.sizes["num_heads"], self.sizes["head_dim"])
        shape = tuple(max(one.values[axis] for one in found) for axis in (0, 1))
        first = tuple(slice(size) for size in shape)
        shares: Tensor | None = None
        factor: float | Tensor = found[0].values[1] ** -0.5
        if any(one.weight is not None for one in found):
            shares = superposed([(one.values, one.weight) for one in found], shape, 0)
            factor = sum(
                one.values[1] ** -0.5 * (1.0 if one.weight is None else one.weight) for one in found
            )
        outputs, wide = cut(self.sizes["embed_dim"])
        inputs = share_of(self.sizes["embed_dim"], read)
        parts: Parts = {"factor": factor}
        for name in READS:
            layer = getattr(self, name)
            weight = layer.weight.unflatten(0, self.heads)[first][..., :read]
            weight = scaled(weight, None, None, inputs)
            parts[f"{name}.weight"] = weight if shares is None else weight * shares[..., None]
            if layer.bias is not None:
                bias = layer.bias.unflatten(0, self.heads)[first]
                parts[f"{name}.bias"] = bias if shares is None else bias * shares
        weight = self.output.weight.unflatten(1, self.heads)[(slice(outputs), *first)]
        weight = scaled(weight, wide)
        parts["output.weight"] = weight if shares is None else weight * shares
        if self.output.bias is not None:
            parts["output.bias"] = scaled(self.output.bias[:outputs], wide)
        return parts

    def forward(self, x: Tensor) -> Tensor:
        parts = self.reading(x.shape[-1])
        heads = []
        for name in READS:
            weight, bias = parts[f"{name}.weight"], parts.get(f"{name}.bias")
            found = F.linear(x, weight.flatten(0, 1), None if bias is None else bias.flatten())
            heads.append(found.unflatten(-1, weight.shape[:2]).transpose(-2, -3))
        query, key, value = heads
        factor = parts["factor"]
        if isinstance(factor, Tensor):
            out = attended(query * factor, key, value, self.is_causal)
        else:
            out = F.scaled_dot_product_attention(query, key, value, is_causal=self.is_causal)
        weight = parts["output.weight"].flatten(1)
        return F.linear(out.transpose(-2, -3).flatten(-2), weight, parts.get("output.bias"))

    def plain(self, read: int, kept: Kept) -> nn.Module:
        parts = self.parts(read)
        heads, width = parts["query.weight"].shape[:2]
        graph = torch.fx.Graph()
        x = graph.placeholder("x")
        inputs, layers = [], {}
        for name in (*READS, "output"):
            weight = parts[f"{name}.weight"].flatten(*((1, 2) if name == "output" else (0, 1)))
            layer = layers[name] = nn.Linear(
                weight.shape[1], weight.shape[0], f"{name}.bias" in parts, device=META
            )
            own = getattr(self, name)
            layer.weight = kept(own.weight, weight)
            if own.bias is not None:
                layer.bias = kept(own.bias, parts[f"{name}.bias"].flatten())
        for name in READS:
            found = graph.call_method(
                "unflatten", (graph.call_module(name, (x,)), -1, (heads, width))
            )
            inputs.append(graph.call_method("transpose", (found, -2, -3)))
        out = graph.call_function(
            F.scaled_dot_product_attention, tuple(inputs), {"is_causal": self.is_causal}
        )
        out = graph.call_method("flatten", (graph.call_method("transpose", (out, -2, -3)), -2))
        graph.output(graph.call_module("output", (out,)))
        return torch.fx.GraphModule(nn.ModuleDict(layers), graph, "MultiheadAttention")


def attended(query: Tensor, key: Tensor, value: Tensor, is_causal: bool) -> Tensor:
    """The same as torch's ``scaled_dot_product_attention`` with a scale of one. It can be
    differentiated twice, as gradients of second order and curvatures need; torch's own cannot.
    """
    scores = query @ key.transpose(-2, -1)
    if is_causal:
        later = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).triu(1)
        scores = scores.masked_fill(later, -torch.inf)
    return scores.softmax(dim=-1) @ value
