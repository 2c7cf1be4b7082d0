"""The practices of the checklist, and the answers that a folder gives to them.

The groups and their order are those of the checklist; the words are ours.
"""

import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from supernet.checklist import of_run, of_simulation, of_study
from supernet.checklist.answer import DOES_NOT_APPLY, DONE, NOT_DONE, Answer
from supernet.checklist.record import RESULTS, RUN_DIR, STUDY_DIR, Record, read
from supernet.files import read_json, write_json

Evidence = Callable[[Record], Answer]

CODE, COMPARISON, DETAILS = "Releasing code", "Comparing methods", "Reporting details"


@dataclass(frozen=True)
class Practice:
    """One item of the checklist. Each evidence looks at a folder and answers for it."""

    name: str
    group: str
    text: str
    run: Evidence
    study: Evidence
    simulation: Evidence


PRACTICES = (
    Practice(
        "training_code",
        CODE,
        "The code that trains the final networks can be had",
        of_run.training_code,
        of_study.training_code,
        of_simulation.no_training,
    ),
    Practice(
        "space_code",
        CODE,
        "The code of the search space can be had",
        of_run.space_code,
        of_study.space_code,
        of_simulation.space_code,
    ),
    Practice(
        "training_settings",
        CODE,
        "The hyperparameters and seeds of the final trainings can be had",
        of_run.training_settings,
        of_study.training_settings,
        of_simulation.no_training,
    ),
    Practice(
        "method_code",
        CODE,
        "The code of the method can be had",
        of_run.method_code,
        of_study.method_code,
        of_simulation.method_code,
    ),
    Practice(
        "method_settings",
        CODE,
        "The hyperparameters and seeds of the method can be had",
        of_run.method_settings,
        of_study.method_settings,
        of_simulation.method_settings,
    ),
    Practice(
        "same_benchmark",
        COMPARISON,
        "All that is compared has the same data, split, space and training recipe",
        of_run.same_benchmark,
        of_study.same_benchmark,
        of_simulation.same_benchmark,
    ),
    Practice(
        "confounders",
        COMPARISON,
        "What else could make a difference is controlled: hardware, versions, run times",
        of_run.confounders,
        of_study.confounders,
        of_simulation.confounders,
    ),
    Practice(
        "ablations",
        COMPARISON,
        "Ablations show what each part of the method gives",
        of_run.ablations,
        of_study.ablations,
        of_simulation.ablations,
    ),
    Practice(
        "same_protocol",
        COMPARISON,
        "All that is compared is judged in the same way",
        of_run.same_protocol,
        of_study.same_protocol,
        of_simulation.same_protocol,
    ),
    Practice(
        "over_time",
        COMPARISON,
        "Performance is shown over time",
        of_run.over_time,
        of_study.over_time,
        of_simulation.over_time,
    ),
    Practice(
        "random_search",
        COMPARISON,
        "There is a comparison with random search",
        of_run.random_search,
        of_study.random_search,
        of_simulation.random_search,
    ),
    Practice(
        "several_runs",
        COMPARISON,
        "Experiments are repeated, and the seeds are named",
        of_run.several_runs,
        of_study.several_runs,
        of_simulation.several_runs,
    ),
    Practice(
        "tables",
        COMPARISON,
        "A tabular or surrogate benchmark is used",
        of_run.tables,
        of_study.tables,
        of_simulation.tables,
    ),
    Practice(
        "tuning",
        DETAILS,
        "It is said how hyperparameters were tuned, and what that took",
        of_run.tuning,
        of_run.tuning,
        of_run.tuning,
    ),
    Practice(
        "whole_time",
        DETAILS,
        "The time of the whole method is reported, not that of the search alone",
        of_run.whole_time,
        of_study.whole_time,
        of_simulation.whole_time,
    ),
    Practice(
        "details",
        DETAILS,
        "All details of the set-up are reported",
        of_run.details,
        of_study.details,
        of_simulation.details,
    ),
)


def checklist(record: Record) -> list[dict[str, Any]]:
    """The answer to each practice, as ``results.json`` has it: ``name``, ``group``, ``practice``,
    ``answer``, ``why``, ``command``.
    """
    rows = []
    for one in PRACTICES:
        evidence = one.study if record.is_study else one.run
        answer = (one.simulation if record.is_simulation else evidence)(record)
        said = {"name": one.name, "group": one.group, "practice": one.text}
        rows.append(said | asdict(answer))
    return rows


def add_checklist(folder: Path) -> None:
    """Writes the answers for ``folder`` into its ``results.json``."""
    value = read_json(folder / RESULTS)
    write_json(folder / RESULTS, value | {"checklist": checklist(read(folder))})


def as_text(rows: Sequence[Mapping[str, Any]], folder: Path) -> str:
    """The answers for a terminal. A command stands in a line of its own, so that it can be copied,
    and has the ``folder``.
    """
    lines, group, place = [], "", f"from={shlex.quote(str(folder))}"
    for row in rows:
        if row["group"] != group:
            group = row["group"]
            lines += ["", group.upper()]
        lines += [f"[{row['answer']}] {row['practice']}", f"    {row['why']}"]
        if row["command"]:
            there = row["command"].replace(f"from={RUN_DIR}", place)
            lines.append(f"    {there.replace(f'from={STUDY_DIR}', place)}")
    return "\n".join([*lines, "", count(rows)]).strip()


def count(rows: Sequence[Mapping[str, Any]]) -> str:
    """How many practices have which answer, in one line."""
    each = [row["answer"] for row in rows]
    said = ", ".join(f"{each.count(one)} {one}" for one in (DONE, NOT_DONE, DOES_NOT_APPLY))
    return f"{len(rows)} practices: {said}"
