"""The lines of a study's runs: the line of the study itself, with what each run changes."""

from collections.abc import Sequence

from supernet.cli.composition import composed, node_of
from supernet.cli.line import PARTS, key
from supernet.cli.options import Folders
from supernet.cli.overrides import literal
from supernet.config import SEVERAL, Config
from supernet.errors import UserError
from supernet.simulation import require_judgements_alone
from supernet.study.cells import Cell, cells_of


def runs_of(overrides: Sequence[str], folders: Folders) -> dict[str, list[str]]:
    """The overrides of every run of a study, or of every simulation: name -> overrides. A run that
    waits for others does not know all of them yet.
    """
    config = composed(overrides, folders)
    if config.study.table is not None:
        return simulations_of(overrides, config, folders)
    return {cell.name: line_of(overrides, cell) for cell in study_cells(overrides, folders)}


def study_cells(overrides: Sequence[str], folders: Folders) -> list[Cell]:
    """The cells of a study.

    Raises:
        UserError: the settings of the study do not go together.
    """
    config = composed(overrides, folders)
    if config.architecture is not None:
        raise UserError("a study compares what methods find: leave out architecture=")
    known: dict[str, Config] = {}  # to compose one takes a fifth of a second

    def config_of(cell: Cell) -> Config:
        if cell.name not in known:
            known[cell.name] = composed(line_of(overrides, cell), folders)
        return known[cell.name]

    return cells_of(config.study, config_of)


def line_of(overrides: Sequence[str], cell: Cell) -> list[str]:
    """The overrides of one cell. What it changes replaces what the study's line says; where it
    chooses a part of the method, also the settings of that part.
    """
    parts = {name for name in cell.changes if name in (*PARTS, *SEVERAL)}

    def replaced(name: str) -> bool:
        return name in cell.changes or name.partition(".")[0] in parts

    own = [one for one in overrides if not replaced(key(one)) and not key(one).startswith("hydra.")]
    changes = [
        f"{name}={literal(value) if name == 'architecture' else value}"
        for name, value in cell.changes.items()
    ]
    return [*own, *changes]


def simulations_of(
    overrides: Sequence[str], config: Config, folders: Folders
) -> dict[str, list[str]]:
    """The simulations of a study on a table: name of a searcher -> overrides.

    Raises:
        UserError: there is no searcher, or one needs a supernet.
    """
    if not config.study.searchers:
        raise UserError("study.searchers: there must be at least one")
    for name in config.study.searchers:
        require_judgements_alone(name, node_of("searcher", name, folders, "study.searchers"))
    own = [one for one in overrides if key(one) != "searcher" and not key(one).startswith("hydra.")]
    evaluations = f"searcher.candidates={config.study.draws}"
    return {name: [*own, f"searcher={name}", evaluations] for name in config.study.searchers}
