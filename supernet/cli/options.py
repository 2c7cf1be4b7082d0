"""The folders of YAML files that hold the options: the package's own, and the user's own."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from supernet.errors import UserError

PACKAGE = Path(__file__).parents[1]


def conf_dir() -> Path:
    """The package's YAML files: inside the package if it is installed, beside it in a checkout."""
    inside = PACKAGE / "conf"
    return inside if inside.is_dir() else PACKAGE.parent / "conf"


@dataclass(frozen=True)
class Recorded:
    """Some settings come from the run in ``folder``, which may be someone else's. ``classes`` are
    those that the user has named on the command line; see :mod:`supernet.cli.trust`.
    """

    folder: Path
    classes: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Folders:
    """The package's YAML, and the folders of ``--config-dir``, which have the same groups.

    ``recorded`` is set if the overrides that choose among them come from the folder of a run that
    the user has not said to trust.
    """

    own: tuple[Path, ...] = ()
    recorded: Recorded | None = None

    @classmethod
    def of(cls, folders: Iterable[Path]) -> "Folders":
        """The package's folder together with these.

        Raises:
            UserError: a folder does not exist, or has an option that the package has as well.
        """
        found = tuple(folder.expanduser().resolve() for folder in folders)
        for folder in found:
            if not folder.is_dir():
                raise UserError(
                    f"--config-dir={folder}: no such folder; give one with groups in it, as "
                    "space/mine.yaml"
                )
            for path in folder.glob("*/*.yaml"):
                if (conf_dir() / path.relative_to(folder)).exists():  # Hydra would take that one
                    raise UserError(
                        f"{path}: supernet has an option {path.parent.name}={path.stem}; give "
                        "yours another name"
                    )
        return cls(found)

    @property
    def all(self) -> tuple[Path, ...]:
        return (*self.own, conf_dir())

    def groups(self) -> list[str]:
        """The names of all groups."""
        return sorted({path.name for root in self.all for path in root.iterdir() if path.is_dir()})

    def options(self, group: str) -> list[str]:
        """The names of the options of a group."""
        return sorted({path.stem for root in self.all for path in (root / group).glob("*.yaml")})

    def file(self, group: str, option: str) -> Path:
        """The YAML of an option."""
        files = (root / group / f"{option}.yaml" for root in self.all)
        return next(path for path in files if path.is_file())

    def override(self) -> list[str]:
        """The override that adds the user's own folders to Hydra's search path."""
        if not self.own:
            return []
        from supernet.cli.overrides import literal  # Hydra takes long to import

        places = ",".join(literal(f"file://{folder}") for folder in self.own)
        return [f"hydra.searchpath=[{places}]"]
