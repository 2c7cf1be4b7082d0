"""The evidence for each practice in the folder of a study that simulates searchers on a table."""

from math import ceil

from supernet.checklist import of_run
from supernet.checklist.answer import Answer, does_not_apply, done, not_done
from supernet.checklist.record import SETTINGS, Record, named


def table_of(study: Record) -> str:
    return str(study.results.get("table"))


def searchers(study: Record) -> list[str]:
    return [row["searcher"] for row in study.results["simulation"]]


# --- releasing code


def no_training(study: Record) -> Answer:
    return does_not_apply(f"no network was trained: the accuracies are those of {table_of(study)}")


def space_code(study: Record) -> Answer:
    return of_run.code(study, study.parts("space"))


def method_code(study: Record) -> Answer:
    return of_run.code(study, sorted(named(study.results["simulation"])))


def method_settings(study: Record) -> Answer:
    for row in study.results["simulation"]:
        if not row.get("settings"):
            return not_done(f"{row['searcher']} has no settings", study.anew())
    if not study.results.get("simulations"):
        return not_done("no seeds are recorded", study.anew())
    last = study.results["simulations"] - 1
    return done(f"results.json, simulation: the settings of each searcher; seeds 0 to {last}")


# --- comparing methods


def same_benchmark(study: Record) -> Answer:
    content = study.results.get("content")
    if not content:
        return not_done("no checksum of the table is recorded", study.anew())
    return done(f"one table for all searchers: {table_of(study)}, {content[:12]} (checksum)")


def confounders(study: Record) -> Answer:
    return does_not_apply("nothing is timed: the figures and the costs are those of the table")


def ablations(study: Record) -> Answer:
    return does_not_apply("a simulation compares whole searchers, each with one setting")


def same_protocol(study: Record) -> Answer:
    """By the evaluations that were really spent. Where they differ, each searcher must be compared
    with random search after as many evaluations as both have spent.
    """
    rows, target = study.results["simulation"], study.setting("study.target")
    if target is None or not all(row.get("evaluations") for row in rows):
        return not_done("the column, or the number of evaluations, is not recorded", study.anew())
    ends = {row["searcher"]: [row["evaluations"][end] for end in ("least", "most")] for row in rows}
    said = "; ".join(f"{name} {least:g} to {most:g}" for name, (least, most) in ends.items())
    if len({end for both in ends.values() for end in both}) == 1:
        return done(f"judged by the column {target}, after equal evaluations: {said}")
    if "random" not in ends:
        return not_done(f"searchers spent different numbers of evaluations: {said}", random(study))
    for row in rows:
        least = min(ceil(ends[name][0]) for name in (row["searcher"], "random"))
        after = (row.get("minus_random") or {}).get("after")
        if row["searcher"] != "random" and (after is None or after > least):
            why = f"{row['searcher']} is not compared with random search at equal evaluations"
            return not_done(f"{why}: {said}", study.anew())
    return done(
        f"judged by the column {target}, and compared with random search after as many evaluations "
        f"as both have spent; in all: {said}"
    )


def over_time(study: Record) -> Answer:
    if not all(row.get("curve") for row in study.results["simulation"]):
        return not_done("there is no curve of each searcher", study.anew())
    return done("results.json, simulation: regret after each evaluation (curve)")


def random_search(study: Record) -> Answer:
    if "random" in searchers(study):
        return done("results.json, simulation: random")
    return not_done("random is not simulated", random(study))


def random(study: Record) -> str:
    """The command that also simulates random search."""
    every = ",".join(["random", *searchers(study)])
    return study.go_on("study", f"study.searchers=[{every}]")


def several_runs(study: Record) -> Answer:
    number = study.results.get("simulations") or 0
    if number < of_run.FEWEST:
        return not_done(f"{number} simulations", study.go_on("study", "study.simulations=200"))
    return done(f"{number} simulations of each searcher, seeds 0 to {number - 1}, with intervals")


def tables(study: Record) -> Answer:
    if not study.results.get("table"):
        return not_done("the table is not named", study.anew())
    return done(table_of(study))


# --- reporting details


def whole_time(study: Record) -> Answer:
    column = study.setting("study.cost")
    if column is None or not all(row.get("cost") for row in study.results["simulation"]):
        command = study.go_on("study", "study.cost=COLUMN")
        return not_done("the table's cost of each evaluation is not counted", command)
    return done(f"results.json, simulation: the cost of all evaluations, by the column {column}")


def details(study: Record) -> Answer:
    there = {
        f"the settings ({SETTINGS})": study.settings,
        "the versions and the hardware (environment)": study.environments,
        "a checksum of the table (content)": study.results.get("content"),
    }
    return of_run.all_there(study, there)
