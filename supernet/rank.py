"""``supernet rank``: does the supernet put architectures in the right order?

Random architectures are judged with inherited weights, as the searchers judge them, and set against
the truth: their accuracy trained from scratch, a published table, or both. Beside the supernets
stand the predictors that cost nothing (the number of parameters, of multiply-adds): one that ranks
no better than these has not earned its keep (Yang, Esperança & Carlucci, ICLR 2020; Yu et al., ICLR
2020).
"""

import time
from pathlib import Path
from typing import Any

from torch import nn

from supernet.errors import UserError
from supernet.evaluate.published import Published, read_published
from supernet.evaluate.ranking import correlations
from supernet.mixture import Architecture
from supernet.randomness import Streams
from supernet.run import Run, option
from supernet.state import key_of


def rank(run: Run, others: list[Run]) -> dict[str, Any]:
    """Ranks with the supernet of ``run`` and with those of ``others``, on the same architectures;
    commits what it found.

    Raises:
        UserError: another supernet is not trained, or not on the same space and images; the table
        is not one of this space.
    """
    settings = run.config.rank
    for other in others:
        if other.state.result("search", other.search_key) is None:
            raise UserError(
                f"rank.beside={other.folder}: holds no trained supernet; run supernet search "
                f"from={other.folder} first"
            )
        if other.weights_key != run.weights_key:
            raise UserError(
                f"rank.beside={other.folder}: its space, geometry, seed or images are others; "
                "such ranks do not compare"
            )
    published = (
        None
        if settings.published is None
        else read_published("rank.published", Path(settings.published), settings.target)
    )
    architectures = drawn(run)
    texts = [run.space.encode(architecture) for architecture in architectures]
    if published and (missing := [text for text in texts if text not in published.rows]):
        raise UserError(
            f"rank.published={settings.published}: has no {missing[0]}; it must hold every "
            "architecture of the space "
            f"{run.space.name} in the notation that supernet writes"
        )
    run.search()
    runs = dict(zip(names([run, *others]), [run, *others], strict=True))
    searches = [one.search_key for one in runs.values()]
    key = key_of(
        searches, run.training_key, *(run.settings[part] for part in ("rank", "judge", "budget"))
    )
    if (done := run.finished("rank", key)) is not None:
        return done

    started = time.perf_counter()
    predicted: dict[str, list[float]] = {}
    for name, one in runs.items():
        supernet = one.trained_supernet().supernet
        for recalibrated in (True, False):
            label = f"{name}, {'recalibrated' if recalibrated else 'as trained'}"
            batches = one.config.judge.recalibration_batches if recalibrated else 0

            def judge(
                architecture: Architecture,
                one: Run = one,
                supernet: nn.Module = supernet,
                batches: int = batches,
            ):
                return one.judge(supernet, architecture, 1.0, batches)

            with run.progress.stage(label, len(architectures)) as update:
                judged = run.judged(
                    f"rank-{key_of(one.search_key, batches)}", architectures, judge, update
                )
            predicted[label] = [judgement.accuracy for judgement in judged]
    for metric in ("params", "madds"):
        predicted[metric] = [
            run.budget.costs(architecture)[metric] for architecture in architectures
        ]
    seconds = time.perf_counter() - started

    truths: dict[str, list[float]] = {}
    if settings.scratch:
        trained = [
            run.train(f"rank/{i}", architectures[i], i, "scratch") for i in range(settings.scratch)
        ]
        truths["trained from scratch"] = [result["accuracy"] for result in trained]
    if published:
        truths[f"published {settings.target}"] = published.of(texts, settings.target)
    result = {
        "architectures": len(architectures),
        "supernets": [
            {"name": name, "folder": str(one.folder)} | cost(one) for name, one in runs.items()
        ],
        "published": settings.published,
        "against": against(predicted, truths, published, texts, Streams(run.config.seed)),
        "points": [
            {"text": text}
            | {name: values[i] for name, values in predicted.items()}
            | {name: values[i] for name, values in truths.items() if i < len(values)}
            for i, text in enumerate(texts)
        ],
        "seconds": seconds,  # of judging; the trainings count their own
    }
    return run.commit("rank", key, result)


def names(runs: list[Run]) -> list[str]:
    """A name for each supernet: that of its sampler, with the folder where two have the same."""
    samplers = [option(run.sampler) for run in runs]
    return [
        s if samplers.count(s) == 1 else f"{s} ({run.folder.name})"
        for s, run in zip(samplers, runs, strict=True)
    ]


def cost(run: Run) -> dict[str, Any]:
    return {k: v for k, v in run.search().items() if k in ("seconds", "steps", "epochs")}


def drawn(run: Run) -> list[Architecture]:
    """As many different architectures as asked for, or as can be found within the budget."""
    rng, wanted = Streams(run.config.seed).host("rank"), run.config.rank.architectures
    found: dict[Architecture, None] = {}
    for _ in range(100 * wanted):
        if len(found) == wanted:
            break
        found[run.budget.random(rng)] = None
    return list(found)


def against(
    predicted: dict[str, list[float]],
    truths: dict[str, list[float]],
    published: Published | None,
    texts: list[str],
    streams: Streams,
) -> dict[str, dict[str, Any]]:
    """For each truth, the correlations of each predictor with it; a published table's other columns
    predict its own truth.
    """
    tables = {}
    for number, (truth, values) in enumerate(truths.items()):
        rivals = dict(predicted)
        if truth.startswith("published"):
            if "trained from scratch" in truths and len(truths["trained from scratch"]) == len(
                texts
            ):
                rivals["trained from scratch"] = truths["trained from scratch"]
            target = truth.removeprefix("published ")
            rivals |= {
                f"published {c}": published.of(texts, c)
                for c in published.columns
                if c not in (target, "index")
            }
        tables[truth] = {
            name: correlations(
                scores[: len(values)], values, streams.host(f"bootstrap/{number}/{name}")
            )
            for name, scores in rivals.items()
        }
    return tables
