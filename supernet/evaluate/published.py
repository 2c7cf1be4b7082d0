"""A tabular benchmark: a table of published accuracies of every architecture of a space."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from supernet.errors import UserError, unknown
from supernet.files import read_npz


@dataclass(frozen=True)
class Published:
    """A table with a row for each architecture and a column for each kind of figure."""

    rows: dict[str, int]  # an architecture in the notation of its space -> number of its row
    columns: dict[str, np.ndarray]  # name of a column -> its figures [architectures]

    def of(self, texts: Sequence[str], column: str) -> list[float]:
        """The figures in ``column`` of the architectures ``texts``, in the same order."""
        return [float(self.columns[column][self.rows[text]]) for text in texts]

    def require(self, text: str, where: str, space: str) -> str:
        """The ``text`` of an architecture, which must be in the table. ``where`` is the setting
        that names the table, with its value.

        Raises:
            UserError: it is not in the table.
        """
        if text not in self.rows:
            raise UserError(
                f"{where}: has no {text}; it must hold every architecture of the space {space} in "
                "the notation that supernet writes"
            )
        return text

    def require_percent(self, column: str, where: str) -> None:
        """Raises a UserError unless the figures in ``column`` are percentages, as accuracies are.
        ``where`` is the setting that names the table, with its value.
        """
        figures = self.columns[column]
        if figures.min() < 0 or figures.max() > 100:
            raise UserError(
                f"{where}: column {column} has figures from {figures.min():g} to "
                f"{figures.max():g}; accuracies are percentages, from 0 to 100: choose another "
                "column"
            )

    def among(self, allowed: Callable[[str], bool]) -> "Published":
        """The part of the table whose architectures are ``allowed``."""
        texts = [text for text in self.rows if allowed(text)]
        kept = [self.rows[text] for text in texts]
        columns = {name: figures[kept] for name, figures in self.columns.items()}
        return Published({text: row for row, text in enumerate(texts)}, columns)

    def random_search(
        self, draws: int, by: str, target: str, searches: int, rng: np.random.Generator
    ) -> np.ndarray:
        """Simulates ``searches`` random searches and returns the ``target`` figure that each finds.

        Each search draws ``draws`` architectures and takes the one that is best in the column
        ``by``.
        """
        judged, truth = self.columns[by], self.columns[target]
        drawn = (
            rng.choice(len(judged), min(draws, len(judged)), replace=False) for _ in range(searches)
        )
        return np.array([truth[some[np.argmax(judged[some])]] for some in drawn])


def read_published(setting: str, path: Path, *wanted: str) -> Published:
    """Reads the table in the npz file ``path``.

    The array ``arch`` holds the architectures in the notation of the space. Every other array of
    numbers is a column. A column with a figure for each seed, ``[architectures, seeds]``, is
    averaged over the seeds. ``setting`` is the setting that holds the path, for messages.

    Raises:
        UserError: the file cannot be read, it has no ``arch`` or lacks a column that is ``wanted``,
            or a figure is not finite.
    """
    where = f"{setting}={path}"
    arrays = read_npz(path, where)
    if "arch" not in arrays:
        raise UserError(
            f"{where}: has no arch, only {', '.join(arrays)}; the names of the architectures"
        )
    names = arrays.pop("arch")
    if names.ndim != 1 or names.dtype.kind != "U":
        raise UserError(f"{where}: arch must be one text for each architecture")
    rows = {str(text): row for row, text in enumerate(names)}
    if len(rows) < len(names):
        twice = next(text for row, text in enumerate(names) if rows[str(text)] != row)
        raise UserError(f"{where}: has {twice} twice; keep one of its rows")
    columns = {name: array for name, array in arrays.items() if is_column(array, len(rows))}
    for column in wanted:
        if column not in columns:
            raise UserError(f"{where}: column {unknown(column, list(columns))}")
    for name, array in columns.items():
        if not np.isfinite(array).all():
            raise UserError(
                f"{where}: column {name} has figures that are NaN or infinite; correct "
                "them, or leave the column or these architectures out"
            )
    return Published(
        rows, {name: a if a.ndim == 1 else a.mean(axis=1) for name, a in columns.items()}
    )


def is_column(array: np.ndarray, architectures: int) -> bool:
    """Whether an array has a number, or one for each seed, for each architecture."""
    numbers = array.dtype.kind in "iuf"
    return (
        numbers and array.shape[:1] == (architectures,) and array.ndim in (1, 2) and array.size > 0
    )
