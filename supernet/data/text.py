"""A text file as a data set: windows of tokens, each with the tokens that follow."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Self

import numpy as np
import torch
from torch import Tensor

from supernet.bounds import Bounded, Bounds, Part
from supernet.data.dataset import ImageData, Images
from supernet.errors import UserError, unknown
from supernet.files import PATH
from supernet.task import NextToken

KINDS = ("characters", "bytes")


@dataclass(frozen=True, eq=False)
class Tokens(Images):
    """Windows of a text, one behind the other.

    ``inputs`` [N, context] are the tokens of each window. ``targets`` [N, context] are the tokens
    that follow each of them, so that the last one belongs to the next window. All ``labels`` are 0.
    """

    inputs: Tensor
    targets: Tensor
    labels: Tensor

    @classmethod
    def of(cls, text: Tensor, context: int) -> Self:
        """The windows of a text, a tensor of tokens [length]. What fills no window is left out."""
        count = (len(text) - 1) // context
        inputs, targets = (
            text[start : start + count * context].view(count, context) for start in (0, 1)
        )
        return cls(inputs, targets, torch.zeros(count, dtype=torch.int64))

    @property
    def channels(self) -> int:
        return 1

    @property
    def size(self) -> tuple[int, int]:
        return 1, self.inputs.shape[1]

    def stream(self, indices: Tensor, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yields inputs and targets, both int64 [B, context]."""
        for part in indices.to(self.labels.device).split(batch_size):
            yield self.inputs[part].long(), self.targets[part].long()

    def to(self, device: torch.device | str) -> Self:
        return replace(
            self,
            inputs=self.inputs.to(device),
            targets=self.targets.to(device),
            labels=self.labels.to(device),
        )

    def averaged(self, size: tuple[int, int]) -> Self:
        raise UserError("data.image_size: a text has no images; leave it out")


@dataclass(frozen=True)
class Text(Bounded):
    """A text file. What is learnt is to predict the next token.

    Attributes:
        path: the path of the file.
        tokens: "characters" of a file in UTF-8, or "bytes" of any file. The characters are numbered
            in the order of Unicode.
        context: how many tokens a network reads at once.
        test_share: the share of the text, at its end, that is the test set.
    """

    where = "data.source"

    path: str = field(metadata=PATH)
    tokens: str = "characters"
    context: Annotated[int, Bounds(least=1, most=2**20)] = 64
    test_share: Part = 0.1

    def load(self) -> ImageData:
        """Reads the file.

        Raises:
            UserError: it cannot be read, is no text, or is too short.
        """
        path = Path(self.path).expanduser()
        if self.tokens not in KINDS:
            raise UserError(f"data.source.tokens: {unknown(self.tokens, KINDS)}")
        try:
            content = path.read_bytes()
        except OSError as error:
            raise UserError(
                f"data.source.path={path}: cannot read it ({error.strerror}); give a text file"
            ) from error
        numbers, names = (
            by_bytes(content) if self.tokens == "bytes" else by_character(content, path)
        )
        text = torch.from_numpy(numbers)
        first = round(len(text) * (1 - self.test_share))
        train, test = (Tokens.of(part, self.context) for part in (text[:first], text[first:]))
        if len(train) < 4 or not len(test) or len(names) < 2:
            raise UserError(
                f"{path}: {len(text)} {self.tokens}, of which {len(names)} differ, are too few for "
                f"windows of {self.context}; give a longer text, or a smaller data.source.context"
            )
        line = (
            f"{path}: {len(text):,} {self.tokens}, {len(names)} different ones; {len(train)} "
            f"training and {len(test)} test windows of {self.context}"
        )
        none = torch.empty(0)
        return ImageData(
            name=str(path),
            classes=len(names),
            train=train,
            test=test,
            mean=none,
            std=none,
            class_names=tuple(names),
            found=(line,),
            own_task=NextToken((self.context,), len(names)),
        )


def by_bytes(content: bytes) -> tuple[np.ndarray, list[str]]:
    """The bytes that occur, numbered in their order, and their values as text."""
    found, numbers = np.unique(np.frombuffer(content, dtype=np.uint8), return_inverse=True)
    return numbers.astype(np.uint8), [str(value) for value in found]


def by_character(content: bytes, path: Path) -> tuple[np.ndarray, list[str]]:
    """The characters that occur, numbered in their order, and the characters themselves."""
    try:
        points = np.frombuffer(content.decode("utf-8").encode("utf-32-le"), dtype="<u4")
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path}: is not text in UTF-8 (byte {error.start}); save it as UTF-8, or set "
            "data.source.tokens=bytes"
        ) from error
    found, numbers = np.unique(points, return_inverse=True)
    return numbers.astype(np.int32), [chr(value) for value in found]
