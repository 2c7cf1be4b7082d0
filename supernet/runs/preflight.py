"""What can be known before anything is trained: are the files that settings name there and right,
can the networks that are trained last be built, and is a setting slow on this machine?
"""

import itertools
import math
from collections.abc import Iterator
from pathlib import Path

import torch

from supernet.cost.latency import read_table
from supernet.device import computes_bf16
from supernet.errors import UserError, enough_memory
from supernet.evaluate.published import Published, read_published
from supernet.mixture import Architecture
from supernet.randomness import Streams
from supernet.runs.candidate import shortlist_splits
from supernet.runs.folder import LATENCIES
from supernet.runs.room import require_room_for_weights
from supernet.runs.setup import Setup
from supernet.runs.training import Train, finished_retrainings, fresh_network, retrain_stage
from supernet.spaces.space import Form, Space
from supernet.train.checkpoint import Checkpoints

LISTED = 20_000  # a space with at most as many architectures is compared with a table as a whole
DRAWN = 1_000  # of a larger one, this many random architectures


def read_files(setup: Setup, command: str, parent: Path | None = None) -> None:
    """Reads every file that a setting names and that ``command`` needs later.

    ``parent`` is the folder of the run that this one goes on from. Its latency table is taken over.

    Raises:
        UserError: a file is missing, damaged, or does not belong to the space.
    """
    config, budget = setup.config, setup.config.budget
    measured = parent is not None and (parent / LATENCIES).exists()
    if budget.measures and budget.latency_table is not None and not measured:
        read_table(Path(budget.latency_table), setup.space)
    if config.retrain.warm_start is not None:
        read_warm_start(setup, Path(config.retrain.warm_start))
    study, rank = config.study, config.rank
    if command == "study" and study.published is not None:
        columns = (study.target, study.ranked_by)
        table = read_published("study.published", Path(study.published), *columns)
        table.require_percent(study.target, f"study.published={study.published}")
        require_all("study.published", study.published, table, setup.space)
    if command == "rank" and rank.published is not None:
        table = read_published("rank.published", Path(rank.published), rank.target)
        require_some("rank.published", rank.published, table, setup.space)


def read_warm_start(setup: Setup, folder: Path) -> None:
    """Reads the networks that retrainings start from.

    Raises:
        UserError: there are none, one is damaged, or one is of another space.
    """
    finished = finished_retrainings(folder)
    for index, stage in enumerate(finished[: setup.config.retrain.seeds]):
        setup.space.decode(stage["result"]["text"])
        name = f"retrain/{index}"
        if Checkpoints(folder / "checkpoints").load(name, stage["key"]) is None:
            raise UserError(
                f"retrain.warm_start={folder}: the network {name} is gone; restore it, or train it "
                f"again: supernet retrain from={folder}"
            )


def require_all(setting: str, path: str, table: Published, space: Space) -> None:
    """Raises a UserError unless a published table has every architecture of the space.

    A large space is not gone through. Then some random architectures must be in the table.
    """
    for architecture in members(space):
        table.require(space.encode(architecture), f"{setting}={path}", space.name)


def require_some(setting: str, path: str, table: Published, space: Space) -> None:
    """Raises a UserError if a published table has no architecture of the space at all."""
    if not any(space.encode(architecture) in table.rows for architecture in members(space)):
        raise UserError(
            f"{setting}={path}: has no architecture of the space {space.name} in the notation that "
            f"supernet writes, such as {space.encode(next(members(space)))}"
        )


def members(space: Space) -> Iterator[Architecture]:
    """Every architecture of a space, or random ones if there are too many."""
    genes = space.genes
    if math.prod(len(gene.values) for gene in genes) <= LISTED:
        yield from map(space.express, itertools.product(*(gene.values for gene in genes)))
    else:
        rng = Streams(0).host("members")
        yield from (space.random(rng) for _ in range(DRAWN))


def faults(setup: Setup) -> Iterator[str]:
    """Yields what is wrong with the networks of the space, one line each."""
    sizes = [setup.config.search.batch_size, setup.config.retrain.batch_size, len(setup.images)]
    return setup.space.faults(setup.task, min(2, *sizes))


def require_no_faults(setup: Setup) -> None:
    """Raises a UserError if something is wrong with the networks of the space."""
    for fault in faults(setup):
        raise UserError(f"space {setup.space.name}: {fault}")


def warnings_of(setup: Setup) -> list[str]:
    """What a person should know before a run begins, a line each: settings that are allowed, but
    that cost far more than they seem to.
    """
    if setup.config.precision == "bf16" and not computes_bf16(setup.device):
        return [
            "warning: precision=bf16: this processor has no arithmetic for bf16, so products of "
            "matrices take many times longer than in float32; choose precision=float32"
        ]
    return []


def rehearse(setup: Setup) -> None:
    """Builds what is trained last, and computes its outputs for one image.

    So settings that the search does not use are known to be wrong before it begins.

    Raises:
        UserError: a setting is wrong, or there is not enough memory.
    """
    require_no_faults(setup)
    streams = Streams(setup.config.seed)
    architecture = setup.given or setup.space.random(streams.host("rehearsal"))
    form: Form = "search" if setup.init == "inherit" else "evaluation"
    require_room_for_weights(
        setup,
        "retrain",
        lambda: fresh_network(setup, architecture, Streams(0), form),
        Train.smaller,
    )
    with enough_memory("retrain", Train.smaller):
        network = fresh_network(setup, architecture, streams, form)
        stage = retrain_stage(setup, "rehearsal", network, setup.images, streams)
        with torch.no_grad():
            stage.network.eval()(
                setup.task.example(1, noise=torch.Generator().manual_seed(0)).to(setup.device)
            )
    if setup.given is None and setup.config.shortlist.size > 1:
        shortlist_splits(setup)
