"""A table of the published accuracies of every architecture of a space: a tabular benchmark."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from supernet.errors import UserError, unknown


@dataclass(frozen=True)
class Published:
    """Columns of figures by name, and the row of each architecture's text."""

    rows: dict[str, int]
    columns: dict[str, np.ndarray]

    def of(self, texts: Sequence[str], column: str) -> list[float]:
        """The figures of architectures, in their order."""
        return [float(self.columns[column][self.rows[text]]) for text in texts]

    def random_search(
        self, draws: int, by: str, target: str, searches: int, rng: np.random.Generator
    ) -> np.ndarray:
        """``target`` of what random searches find, each of which takes the best of ``draws``
        architectures ``by`` a column.
        """
        judged, truth = self.columns[by], self.columns[target]
        drawn = (
            rng.choice(len(judged), min(draws, len(judged)), replace=False) for _ in range(searches)
        )
        return np.array([truth[some[np.argmax(judged[some])]] for some in drawn])


def read_published(setting: str, path: Path, *wanted: str) -> Published:
    """The table in the npz file ``path``, of which the ``setting`` speaks: ``arch``, names in the
    space's notation, and figures.

    A column with a figure a seed, ``[architectures, seeds]``, becomes its mean.

    Raises:
        UserError: it cannot be read, or has no ``arch``, or not the columns that are ``wanted``.
    """
    try:
        with np.load(path) as file:
            arrays = dict(file)
    except (OSError, ValueError, EOFError) as error:
        raise UserError(
            f"{setting}={path}: cannot be read ({error}); expected an npz file with arch and "
            f"{wanted[0]}"
        ) from error
    if "arch" not in arrays:
        raise UserError(
            f"{setting}={path}: has no arch, only {', '.join(arrays)}; the names of the "
            "architectures"
        )
    rows = {str(text): row for row, text in enumerate(arrays.pop("arch"))}
    columns = {
        name: array if array.ndim == 1 else array.mean(axis=1)
        for name, array in arrays.items()
        if array.shape[:1] == (len(rows),)
        and np.issubdtype(array.dtype, np.number)
        and array.ndim <= 2
    }
    for column in wanted:
        if column not in columns:
            raise UserError(f"{setting}={path}: column {unknown(column, list(columns))}")
    return Published(rows, columns)
