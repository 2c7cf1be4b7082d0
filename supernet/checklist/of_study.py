"""The evidence for each practice in the folder of a study.

What is the same in all runs is read from the settings that each run has recorded. Runs are compared
with each other if they have the same space and the same data.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from itertools import combinations
from typing import Any

from supernet.checklist import of_run
from supernet.checklist.answer import Answer, does_not_apply, done, not_done
from supernet.checklist.record import SETTINGS, Record
from supernet.shapes import flat

# The settings that belong to a method, and not to what methods are compared on.
OF_METHOD = ("space.search", "budget.skips")
PARTS = (*of_run.METHOD, "search", "shortlist", *OF_METHOD)  # of a method, for ablations

Evidence = Callable[[Record], Answer]


def every(evidence: Evidence) -> Evidence:
    """The evidence that a practice is done in every run."""

    def of_all(study: Record) -> Answer:
        answers = {run.name: evidence(run) for run in study.runs}
        for name, answer in answers.items():
            if not answer.done:
                return Answer(answer.answer, f"{name}: {answer.why}", answer.command)
        if not answers:
            return not_done("no run has finished", study.go_on("study"))
        name, first = next(iter(answers.items()))
        return done(f"in each of {len(answers)} runs; {name}: {first.why}")

    return of_all


def methods_of(study: Record) -> Record:
    """The study without its rivals and ablations."""
    runs = [one for one in study.runs if not (one.results.get("rival") or one.results.get("base"))]
    return replace(study, runs=tuple(runs))


def every_method(evidence: Evidence) -> Evidence:
    """The evidence that a practice is done in every run of a method. Some rivals search nothing."""
    return lambda study: every(evidence)(methods_of(study))


def by_table(study: Record) -> str | None:
    """The table in which the accuracies were looked up; ``None`` if networks were trained."""
    table = study.setting("study.published")
    return str(table) if table and study.results.get("found") else None


def if_trained(evidence: Evidence) -> Evidence:
    """The evidence for a practice of trainings. Where none were done, it does not apply."""

    def of_trainings(study: Record) -> Answer:
        if table := by_table(study):
            return does_not_apply(f"no network was trained: the accuracies are those of {table}")
        return evidence(study)

    return of_trainings


# --- releasing code

training_code = if_trained(every(of_run.training_code))
space_code = every(of_run.space_code)
method_code = every_method(of_run.method_code)
training_settings = if_trained(every(of_run.training_settings))
method_settings = every_method(of_run.method_settings)


# --- comparing methods


def compared(study: Record) -> list[list[Record]]:
    """The runs that are compared with each other. Those without a trick of the recipe have another
    recipe on purpose, and are a group of their own.
    """
    groups: dict[Any, list[Record]] = {}
    for run in study.runs:
        trick = entry_of(run) if is_ablation(run) else None
        where = run.results.get("space"), run.results.get("data"), trick
        groups.setdefault(where, []).append(run)
    return list(groups.values())


def is_ablation(run: Record) -> bool:
    """Whether the run trains what another one has found by another recipe."""
    return bool(run.results.get("base")) and not run.results.get("share")


def entry_of(run: Record) -> str:
    """What the run is one of: a method, a rival, or a method that is changed."""
    return str(run.results.get("entry") or run.results.get("method"))


def same_benchmark(study: Record) -> Answer:
    if not study.runs:
        return not_done("no run has finished", study.go_on("study"))
    for runs in compared(study):
        first = runs[0]
        for run in runs:
            if not run.settings or not run.results.get("contents", {}).get("data.source"):
                why = f"{run.name}: no settings, or no checksum of the data, are recorded"
                return not_done(why, study.anew())
            if found := difference(first, run):
                name, value, other = found
                why = f"{name} is {value} in {first.name}, and {other} in {run.name}"
                return not_done(why, study.go_on("study", f"{name}={override(value)}"))
            if run.results["contents"] != first.results["contents"]:
                why = f"{first.name} and {run.name} were computed with different data"
                return not_done(why, study.anew())
            unfair = of_run.compared(run) if of_run.others(run) else None
            if unfair:
                return Answer(unfair.answer, f"{run.name}: {unfair.why}", unfair.command)
    contents = {run.results["contents"]["data.source"][:12] for run in study.runs}
    return done(
        f"the settings in {SETTINGS} of all {len(study.runs)} runs agree under data, space, "
        f"retrain, budget and precision; data: {', '.join(sorted(contents))} (checksum)"
    )


def difference(one: Record, other: Record) -> tuple[str, Any, Any] | None:
    """The first setting of the benchmark in which two runs differ, and its two values."""
    mine, theirs = (dict(benchmark(run)) for run in (one, other))
    for name in {**mine, **theirs}:
        if mine.get(name) != theirs.get(name):
            return name, mine.get(name), theirs.get(name)
    return None


def benchmark(run: Record) -> Iterator[tuple[str, Any]]:
    """The settings that must be the same, with their full names."""
    for section in ("data", "space", "retrain", "budget", "precision"):
        for name, value in flat(run.setting(section), section):
            if not name.startswith(OF_METHOD):
                yield name, value


def override(value: Any) -> str:
    """A value as an override has it."""
    if isinstance(value, list):
        return f"[{','.join(map(override, value))}]"
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else str(value)


confounders = of_run.confounders


def ablations(study: Record) -> Answer:
    without = {entry_of(run) for run in study.runs if is_ablation(run)}
    if without:
        return done(f"results.json, study: {', '.join(sorted(without))}")
    methods = methods_of(study)
    for runs in compared(methods):
        for one, other in combinations(runs, 2):
            parts = [part for part in PARTS if one.setting(part) != other.setting(part)]
            if len(parts) == 1:
                return done(f"{one.name} and {other.name} differ in {parts[0]} alone")
    why = "no recipe without a trick, and no two methods that differ in one part alone"
    trick = of_run.trick_of(methods)
    more = f"study.ablate=[{trick}]" if trick else of_run.with_two(methods)
    return not_done(why, study.go_on("study", more))


def same_protocol(study: Record) -> Answer:
    if not study.runs:
        return not_done("no run has finished", study.go_on("study"))
    for runs in compared(study):
        protocols: dict[str, list[str]] = {}
        for run in runs:
            number = judgements(study, run)
            if not number:
                return not_done(f"{run.name} was not judged", study.go_on("study"))
            judged = f"seed {run.results.get('seed')}, {number} times"
            protocols.setdefault(entry_of(run), []).append(judged)
        if len({str(protocol) for protocol in protocols.values()}) > 1:
            each = [f"{method}: {'; '.join(one)}" for method, one in protocols.items()]
            why = f"methods are judged with different seeds, or not as often ({' – '.join(each)})"
            return not_done(why, study.go_on("study"))
    one = "; ".join(next(iter(protocols.values())))
    if by_table(study):
        return done(f"by the column {study.setting('study.target')}, each method with {one}")
    return done(f"on the test images, read once after each training; each method with {one}")


def judgements(study: Record, run: Record) -> int:
    """How many accuracies stand for a run."""
    if by_table(study):
        return int("derive" in run.results)
    return len(run.results.get("retrain", {}).get("accuracy", []))


def over_time(study: Record) -> Answer:
    """By shorter searches, or by figures in the course of the search; for every method."""

    def evidence(run: Record) -> Answer:
        beside = others_beside(study, run)
        own = [one for one in beside if one.results.get("base") == entry_of(run)]
        if shorter := {entry_of(one): None for one in own if one.results.get("share")}:
            return done(f"results.json, study, total_seconds and mean: {', '.join(shorter)}")
        return of_run.over_time(run)

    return every_method(evidence)(study)


def others_beside(study: Record, run: Record) -> list[Record]:
    """The runs of a study on the space and the data of a run, with its seed."""
    same = ("space", "data", "seed")
    where = [run.results.get(name) for name in same]
    return [one for one in study.runs if [one.results.get(name) for name in same] == where]


def random_search(study: Record) -> Answer:
    """By the rival, by the same search in the table, or by random architectures; for every
    method.
    """
    rows = [str(row["method"]) for row in study.results.get("study", [])]
    searched = [name for name in rows if name.startswith("random search, best of")]
    if by_table(study) and searched:
        return done(f"results.json, study: {searched[0]}")

    def evidence(run: Record) -> Answer:
        rivals = (one for one in others_beside(study, run) if one.results.get("rival"))
        if "random_search" in map(entry_of, rivals):
            return done("results.json, study: random_search, at the cost of the methods")
        return of_run.random_search(run)

    return every_method(evidence)(study)


def several_runs(study: Record) -> Answer:
    seeds: dict[str, set[Any]] = {}
    for runs in compared(study):
        for run in runs:
            names = entry_of(run), run.results.get("space"), run.results.get("data")
            where = ", ".join(map(str, names))
            seeds.setdefault(where, set()).add(run.results.get("seed"))
    least = min(seeds, key=lambda name: len(seeds[name]), default=None)
    if least is None:
        return not_done("no run has finished", study.go_on("study"))
    if None in seeds[least] or len(seeds[least]) < of_run.FEWEST:
        why = f"{least}: seeds {listed(seeds[least])}, of {of_run.FEWEST} or more"
        return not_done(why, study.go_on("study", "study.seeds=[0,1,2]"))
    return done("; ".join(f"{name}: seeds {listed(each)}" for name, each in seeds.items()))


def listed(values: Iterable[Any]) -> str:
    return ", ".join(map(str, values))


def tables(study: Record) -> Answer:
    if table := by_table(study):
        return done(f"{table}, column {study.setting('study.target')}; results.json, found")
    return of_run.no_table(study, study.go_on("study", "study.published=FILE.npz"))


# --- reporting details


def whole_time(study: Record) -> Answer:
    if table := by_table(study):
        timed = every(lambda run: of_run.timed(run, "derive"))(study)
        why = f"{timed.why}; training is that of {table}"
        return Answer(timed.answer, why, timed.command)
    return every_method(of_run.whole_time)(study)


def details(study: Record) -> Answer:
    if not study.settings:
        return not_done(f"{SETTINGS} of the study is missing", study.anew())
    return every(of_run.details)(study)
