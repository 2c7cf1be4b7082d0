"""Growth of a small decoder of text, the second domain of Petridish (Hu et al., NeurIPS
2019). There the seed is a recurrent cell; here it is a transformer.
"""

from dataclasses import dataclass

from torch import nn

from supernet.bounds import Length, Places, Ratio
from supernet.spaces.gpt import GPT
from supernet.spaces.growing.module import GrowingBlocks
from supernet.spaces.space import Form
from supernet.task import NextToken, Task


@dataclass
class GrowingText(GrowingBlocks):
    """Growth of the decoder of :class:`~supernet.spaces.gpt.GPT` with one size. Shortcuts run a
    gated activation (:class:`~supernet.spaces.growing.shortcuts.Gated`).
    """

    embedding: Length = 64
    heads: Places = 2
    ratio: Ratio = 2.0
    depth: Places = 2
    head_width: Length = 32

    name = "growing_text"
    any_task = NextToken((32,), 10)

    def network(self, seed: str, task: Task, form: Form) -> nn.Module:
        sizes = [self.embedding], [self.heads], [self.ratio], [self.depth]
        space = GPT(*sizes, head_width=self.head_width)
        return space.standalone(space.express([gene.values[0] for gene in space.genes]), task)
