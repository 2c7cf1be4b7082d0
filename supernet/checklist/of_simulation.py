"""The evidence for each practice in the folder of a study that simulates searchers on a table."""

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
    other = ("study.searchers=[evolution]", "searcher=evolution", "searcher.population=10")
    return not_done("each searcher ran with one setting alone", study.anew(*other))


def same_protocol(study: Record) -> Answer:
    numbers = {len(row.get("curve", [])) for row in study.results["simulation"]}
    target = study.setting("study.target")
    if len(numbers) != 1 or numbers == {0} or target is None:
        return not_done("searchers had different numbers of evaluations", study.anew())
    return done(f"each searcher: {numbers.pop()} evaluations, judged by the column {target}")


def over_time(study: Record) -> Answer:
    if not all(row.get("curve") for row in study.results["simulation"]):
        return not_done("there is no curve of each searcher", study.anew())
    return done("results.json, simulation: regret after each evaluation (curve)")


def random_search(study: Record) -> Answer:
    if "random" in searchers(study):
        return done("results.json, simulation: random")
    every = ",".join(["random", *searchers(study)])
    return not_done("random is not simulated", study.go_on("study", f"study.searchers=[{every}]"))


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
