"""The evidence for each practice in the folder of a run."""

from collections.abc import Mapping, Sequence
from typing import Any

from supernet.checklist.answer import Answer, does_not_apply, done, not_done
from supernet.checklist.record import SETTINGS, Record
from supernet.tricks import TRICKS

METHOD = ("sampler", "learner", "modifier", "guard", "searcher")  # the groups of a method's parts
HYPERPARAMETERS = ("search", "sampler", "learner", "searcher")
TABULAR = ("nb201", "nats_size", "nb_macro")  # the spaces with a published table of all accuracies
CONDITIONS = ("processor", "device", "threads", "python", "torch")  # of the environment
FEWEST = 3  # repetitions that have an interval

# Methods that differ in one part alone, by whether the logits learn.
ABLATION = {True: ("darts", "beta_darts"), False: ("spos", "fairnas")}


# --- releasing code


def code(record: Record, names: Sequence[str]) -> Answer:
    """Whether the code of the classes and programs of these names can be had."""
    if not names:
        return not_done("no setting is recorded that names the classes", record.anew())
    said = ", ".join(names)
    if where := record.statement("code"):
        return done(f"{said}: {where} (checklist.code)")
    command = record.say("code", "WHERE THE CODE CAN BE HAD")
    if own := [name for name in names if not name.startswith("supernet.")]:
        return not_done(f"{', '.join(own)}: no part of supernet, and it is not said where", command)
    commits = [one.get("git_commit") for one in record.environments]
    if not commits or None in commits:
        return not_done("it did not run from a checkout, so no commit is recorded", command)
    if any(one.get("git_changes") is not False for one in record.environments):
        return not_done(f"commit {commits[0]}, with changes that are in no commit", command)
    return done(f"supernet at commit {', '.join(dict.fromkeys(map(str, commits)))}: {said}")


def training_code(record: Record) -> Answer:
    return code(record, record.parts("data"))


def space_code(record: Record) -> Answer:
    return code(record, record.parts("space"))


def method_code(record: Record) -> Answer:
    return nothing_searched(record) or code(record, record.parts(*METHOD))


def nothing_searched(record: Record) -> Answer | None:
    """That a practice of methods does not apply, if the architecture was given."""
    given = record.setting("architecture")
    return does_not_apply(f"nothing was searched: architecture={given}") if given else None


def training_settings(record: Record) -> Answer:
    trained = record.results.get("retrain", {}).get("accuracy")
    if not trained:
        return not_done("nothing was trained from scratch", record.go_on("retrain"))
    numbers = f"seed {record.results.get('seed')}, trainings 0 to {len(trained) - 1}"
    return recorded(record, ("data", "retrain"), numbers)


def method_settings(record: Record) -> Answer:
    if given := nothing_searched(record):
        return given
    if "derive" not in record.results:
        return not_done("no architecture was derived", record.go_on("derive"))
    return recorded(record, HYPERPARAMETERS, f"seed {record.results.get('seed')}")


def recorded(record: Record, sections: Sequence[str], seeds: str) -> Answer:
    """Whether these sections of the settings are in the folder, and the seed."""
    if missing := [name for name in sections if not record.setting(name)]:
        return not_done(f"{SETTINGS} has no {missing[0]}", record.anew())
    if record.results.get("seed") is None:
        return not_done("no seed is recorded", record.anew())
    return done(f"{SETTINGS}: {', '.join(sections)}; {seeds}")


# --- comparing methods


def others(record: Record) -> dict[str, int]:
    """What the found architecture is compared with: name -> number of trainings."""
    results = record.results
    each = {"random": results.get("random_baseline", {})} | results.get("rivals", {})
    return {name: len(one["accuracy"]) for name, one in each.items() if one.get("accuracy")}


def compared(record: Record) -> Answer | None:
    """What is missing for a comparison within the run, or what makes it unfair; ``None`` if
    nothing.
    """
    trained = record.results.get("retrain", {})
    if not trained.get("accuracy"):
        return not_done("nothing was trained from scratch", record.go_on("retrain"))
    if not others(record):
        command = record.go_on("run", f"baseline.architectures={FEWEST}")
        return not_done("nothing was trained for comparison", command)
    if trained.get("init", "scratch") != "scratch" or trained.get("warm_start"):
        fair = ("retrain.init=scratch", "retrain.warm_start=null")
        why = "the found network did not start from scratch, and the random ones did"
        return not_done(why, record.go_on("run", *fair))
    return None


def same_benchmark(record: Record) -> Answer:
    if unfair := compared(record):
        return unfair
    content = record.results.get("contents", {}).get("data.source")
    if not content:
        return not_done("no checksum of the data is recorded", record.anew())
    seeds = f"data {content[:12]} (checksum), split of seed {record.results.get('seed')}"
    settings = recorded(record, ("data", "space", "retrain"), seeds)
    if not settings.done:
        return settings
    return done(f"found and {counted(record)} come from one run; {settings.why}")


def counted(record: Record) -> str:
    return ", ".join(f"{number} {name}" for name, number in others(record).items())


def confounders(record: Record) -> Answer:
    environments = record.environments
    if not environments:
        return not_done("no versions and no hardware are recorded", record.anew())
    first, *rest = environments
    for name, other in ((name, one) for one in rest for name in {**first, **one}):
        if first.get(name) != other.get(name):
            why = f"{name} differs between jobs: {first.get(name)}, {other.get(name)}"
            return not_done(why, record.anew())
    if missing := [name for name in CONDITIONS if first.get(name) is None]:
        return not_done(f"{missing[0]} is not recorded", record.anew())
    if not all(one.results.get("total_seconds") for one in record.runs or (record,)):
        return not_done("no run times are recorded", record.anew())
    return done(
        f"all jobs ran on {first['processor']['name']} ({first['device']}, threads: "
        f"{first['threads']}) with the same versions (torch {first['torch']}); results.json has "
        "the seconds of each part"
    )


def ablations(record: Record) -> Answer:
    if given := nothing_searched(record):
        return given
    why = "a run is one configuration; a study compares methods that differ in one part"
    if "growth" in record.results:
        return not_done(why, record.go_on("run", "growth.by_chance=true"))
    own = f"study.methods=[{record.results.get('method')}]"
    trick = trick_of(record)
    study = (own, f"study.ablate=[{trick}]") if trick else (with_two(record),)
    return not_done(why, record.begin("study", *study, leave_out=("seed", "method")))


def trick_of(record: Record) -> str | None:
    """A trick of the recipe that a run of the record uses and that a study can leave out: with
    ``study.ablate``, any method has an ablation. ``None`` if there is none, or nothing is trained.
    """
    if record.setting("study.published"):
        return None
    settings = [run.settings for run in record.runs or (record,)]
    used = (name for name, one in TRICKS.items() if any(map(one.changes, settings)))
    return next(used, None)


def with_two(record: Record) -> str:
    """The override that lets a study compare the methods of the record, and two that differ in one
    part alone.
    """
    one = record.runs[0] if record.runs else record
    learns = "fixed" not in str(one.setting("learner._target_"))
    methods = [run.results.get("method") for run in record.runs or (record,)]
    each = dict.fromkeys([*(method for method in methods if method), *ABLATION[learns]])
    return f"study.methods=[{','.join(each)}]"


def same_protocol(record: Record) -> Answer:
    if unfair := compared(record):
        return unfair
    trained = record.results["retrain"]
    return done(
        f"accuracy on the test images, read once after {trained.get('epochs')} epochs from "
        f"scratch: found {len(trained['accuracy'])} trainings, {counted(record)}"
    )


def over_time(record: Record) -> Answer:
    if given := nothing_searched(record):
        return given
    curve = curve_of(record)
    if curve is None:
        return not_done("no accuracy was measured in the course of the search", measured(record))
    return done(curve)


def curve_of(record: Record) -> str | None:
    """The figures that show the performance of the method in the course of its work."""
    results = record.results
    if models := results.get("growth", {}).get("models"):
        return f"results.json, growth.models: error and seconds of {len(models)} networks"
    if not record.has("metrics.jsonl"):
        return None
    search, judged = results.get("search", {}), results.get("derive", {}).get("judgements", 0)
    every = record.setting("measure.every") or 0
    if "gap" in search.get("instruments", {}) and 0 < every <= search["epochs"]:
        return f"metrics.jsonl, gap/derived: the derived architecture, every {every} epochs"
    if judged > 1:
        return f"metrics.jsonl, derive: {judged} judgements of the searcher, in order"
    return None


def measured(record: Record) -> str:
    return record.anew("instrument=[gap]", "measure.every=1")


def random_search(record: Record) -> Answer:
    if given := nothing_searched(record):
        return given
    chance = record.results.get("random_baseline", {})
    if not chance.get("accuracy"):
        command = record.go_on("run", f"baseline.architectures={FEWEST}")
        return not_done("no random architecture was trained", command)
    said = f"{len(chance['accuracy'])} random architectures, trained by the same recipe"
    against = record.results.get("found_minus_random")
    if against is None:
        return not_done(f"{said}, but no found one", record.go_on("retrain"))
    return done(f"{said}: found minus random {100 * against['mean']:+.2f} points")


def several_runs(record: Record) -> Answer:
    trained = record.results.get("retrain", {})
    times = len(trained.get("accuracy", []))
    if record.setting("architecture"):
        if trained.get("ci95") is None:
            command = record.go_on("run", f"retrain.seeds={FEWEST}")
            return not_done(f"{times} trainings, of {FEWEST} or more", command)
        return done(f"{times} trainings, seed {record.results.get('seed')}; results.json has each")
    why = f"one search, of seed {record.results.get('seed')}; its network was trained {times} times"
    study = (f"study.methods=[{record.results.get('method')}]", "study.seeds=[0,1,2]")
    return not_done(why, record.begin("study", *study, leave_out=("seed", "method")))


def tables(record: Record) -> Answer:
    against = record.results.get("rank", {}).get("against", {})
    if published := [truth for truth in against if truth.startswith("published")]:
        number = record.results["rank"].get("architectures")
        return done(f"results.json, rank: {number} architectures, {', '.join(published)}")
    return no_table(record, record.go_on("rank", "rank.published=FILE.npz"))


def no_table(record: Record, command: str) -> Answer:
    """That no table is used, for a space that has one."""
    space = str((record.runs[0] if record.runs else record).results.get("space"))
    if space not in TABULAR:
        return does_not_apply(
            f"supernet knows no published table of the space {space}; there are some of "
            f"{', '.join(TABULAR)}"
        )
    return not_done("nothing was compared with published accuracies", command)


# --- reporting details


def tuning(record: Record) -> Answer:
    if said := record.statement("tuning"):
        return done(f"{said} (checklist.tuning)")
    command = record.say("tuning", "WHAT WAS TUNED, HOW, WHAT IT TOOK")
    return not_done("nothing is said; a folder cannot know it", command)


def whole_time(record: Record) -> Answer:
    if given := nothing_searched(record):
        return given
    return timed(record, "derive", "retrain")


def timed(record: Record, *parts: str) -> Answer:
    """Whether the seconds of the search, of these parts of the run, and of all are recorded."""
    parts = ("growth" if "growth" in record.results else "search", *parts)
    seconds = {part: record.results.get(part, {}).get("seconds") for part in parts}
    if missing := [part for part, spent in seconds.items() if spent is None]:
        return not_done(f"{missing[0]} has no seconds", record.go_on("run"))
    total = record.results.get("total_seconds")
    if total is None:
        return not_done("the total is missing", record.go_on("report"))
    said = ", ".join(f"{part} {spent:,.1f}" for part, spent in seconds.items())
    return done(f"{total:,.1f} seconds in total, comparisons included: {said}")


def details(record: Record) -> Answer:
    content = record.results.get("contents", {}).get("data.source")
    there = {
        f"the settings ({SETTINGS})": record.settings,
        "the versions and the hardware (environment)": record.environments,
        "a checksum of the data (contents)": content,
    }
    return all_there(record, there)


def all_there(record: Record, there: Mapping[str, Any]) -> Answer:
    """Whether the folder holds each of the things that are named."""
    if missing := [name for name, found in there.items() if not found]:
        return not_done(f"missing: {'; '.join(missing)}", record.anew())
    return done("; ".join(there))
