"""``supernet evaluate``: judges an architecture with the weights of a finished search."""

from pathlib import Path

from supernet.device import reproducible
from supernet.errors import UserError
from supernet.mixture import Architecture
from supernet.runs.contents import require_same_content
from supernet.runs.folder import State
from supernet.runs.judging import judge_together
from supernet.runs.memory import as_planned
from supernet.runs.search import last_search, searches, trained_supernet
from supernet.runs.setup import Setup
from supernet.runs.work import Work
from supernet.track.console import Progress


def evaluate(setup: Setup, folder: Path) -> str:
    """Judges the given architecture, or else the one that the run in ``folder`` derived. It writes
    nothing.

    Returns:
        One line for people.

    Raises:
        UserError: the folder has no trained supernet of these settings, or there is no
            architecture.
    """
    state = State.read(folder)
    work = Work(as_planned(setup, state.memory), state)
    require_same_content(work.setup, state, None, Progress(quiet=True))
    if work.result(last_search(work.setup)) is None:
        raise UserError(
            f"{folder} holds no trained supernet of these settings; run supernet search first"
        )
    architecture = setup.given
    if architecture is None:
        if "derive" not in state.stages:
            raise UserError(
                f"{folder} has no derived architecture yet; give architecture=..., or run supernet "
                "derive first"
            )
        architecture = Architecture.from_dict(state.stages["derive"]["result"]["architecture"])
    with reproducible(setup.config.threads):
        stages = [trained_supernet(work, job.number) for job in searches(work.setup)]
        found = judge_together(work.setup, stages, architecture, workers=setup.workers)
    return (
        f"accuracy {found.accuracy:.4f} ± {found.standard_error:.4f} (standard error), loss "
        f"{found.loss:.4f}, on {found.images} images, with inherited weights"
    )
