"""A run: search, derive, retrain, report, export, each once, in one folder that can be left and
returned to at any moment.

Every stage has a *key*, a hash of all settings that its result depends on. ``state.json`` holds,
per finished stage, its key and its result; it is replaced in one piece when a stage ends, and
``results.json`` is written from it. A stage whose key is found in the state, or in that of the
parent run, is not run again.
"""

import dataclasses
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import nn

from supernet.config import Config, build
from supernet.cost.budget import Budget
from supernet.cost.count import count
from supernet.cost.latency import Bench, latency_error, measured, read_table, write_table
from supernet.cost.memory import MemoryPlan, overrides, planned, planned_retraining
from supernet.cost.table import CostTable
from supernet.data import ImageData, Splits, evaluation_batches, split
from supernet.device import available_memory_bytes, choose_device, describe, make_deterministic
from supernet.environment import environment
from supernet.errors import UserError
from supernet.evaluate.accuracy import Judgement, evaluate, inherited_accuracy
from supernet.evaluate.curves import upper_bound
from supernet.evaluate.statistics import mean_and_interval
from supernet.files import read_json, write_json, write_text
from supernet.mixture import Architecture, Logits, Mixture
from supernet.randomness import Streams
from supernet.searchers.perturbation import PerturbationSelection
from supernet.searchers.searcher import order, search
from supernet.spaces.capabilities import Drawable
from supernet.spaces.space import Form, Space
from supernet.state import SCHEMA, State, key_of, remove_leftovers
from supernet.track.console import Progress
from supernet.track.interface import Trackers
from supernet.track.jsonlines import JsonLines, read_rows
from supernet.train.candidate import CandidateStage
from supernet.train.checkpoint import Checkpoints
from supernet.train.loop import StageCost, StopRequest, run_stage
from supernet.train.retrain import RetrainSettings, RetrainStage
from supernet.train.search import SearchSettings, SearchStage
from supernet.train.tuning import TuningStage


class Run:
    """The stages of one configuration in one folder. Each method runs its stage, and what that
    needs, unless it is finished.
    """

    def __init__(
        self,
        config: Config,
        folder: Path,
        *,
        parent: Path | None = None,
        progress: Progress | None = None,
        stop: StopRequest | None = None,
    ):
        self.folder = Path(folder)
        self.progress, self.stop = progress or Progress(quiet=True), stop or StopRequest()
        self._configure(config)
        self.space: Space = build(config.space, "space")
        self.sampler = build(config.sampler, "sampler")
        self.learner = build(config.learner, "learner")
        self.modifiers = [
            build(chosen("modifier", node, name), f"modifier.{name}")
            for name, node in config.modifier.items()
        ]
        self.guards = {
            name: build(chosen("guard", node, name), f"guard.{name}")
            for name, node in config.guard.items()
        }
        self.searcher = build(config.searcher, "searcher")
        self.given = (
            None
            if config.architecture is None
            else read_architecture(self.space, config.architecture)
        )
        self.augment = build(config.data.augment, "data.augment")
        self.search_augment = build(config.data.search_augment, "data.search_augment")
        self.source = build(config.data.source, "data.source")
        if (
            self.searcher.needs_scores
            and self.learner.moves != self.sampler.scores_from
            and self.given is None
        ):
            parts = {
                part: option(getattr(self, part)) for part in ("searcher", "sampler", "learner")
            }
            raise UserError(
                f"{' with '.join(f'{part}={name}' for part, name in parts.items())}: the "
                f"{self.sampler.scores_from} never moves, "
                "so the architecture would be arbitrary; choose searcher=random or a learner "
                "that moves it"
            )
        if self.given is None and self.searcher.total < config.shortlist.size:
            raise UserError(
                f"shortlist.size={config.shortlist.size}: searcher={option(self.searcher)} judges "
                f"at most {self.searcher.total}; "
                "choose a smaller shortlist, or another searcher"
            )
        if self.searcher.cost is not None:
            config.budget.require_cost("searcher.cost", self.searcher.cost)
        if config.retrain.init == "inherit":
            self.space.require_inherit()
        if self.guards and self.learner.moves != "logits":
            raise UserError(
                f"guard=[{','.join(self.guards)}] with learner={option(self.learner)}: guards "
                "watch logits; leave them out"
            )
        if config.threads:
            torch.set_num_threads(config.threads)
        self.device = choose_device(config.device)
        make_deterministic()
        self.state = State.read(self.folder)
        if self.state.plan is None and parent is not None:
            self.state.parent = str(parent)
            if (found := State.read(parent).stages.get("search")) is not None:
                self.state.origin = {"key": found["key"]} | found["result"]
        if self.state.plan is None and config.retrain.warm_start is not None:  # else it may be gone
            self.state.warm_start = [
                stage["key"] for stage in retrained(Path(config.retrain.warm_start))
            ]
        self.parent = State.read(Path(self.state.parent)) if self.state.parent else None
        if (
            self.state.memory is not None
            and config.memory == "fit"
            and self.state.memory["asked"] == config.search.batch_size
        ):
            self._use(self.state.memory["batch_size"], self.state.memory.get("recompute", False))
        self.checkpoints = Checkpoints(self.folder / "checkpoints", config.checkpoint.every_seconds)
        self.tracker = Trackers(
            [JsonLines(self.folder / "metrics.jsonl"), build(config.tracker, "tracker")]
        )

    def __enter__(self) -> "Run":
        if self.state.plan is None:
            if self.config.memory in ("refuse", "fit") and self.given is None:
                self._plan_memory()
            self.state.plan = self.plan
            self.state.write()
        elif self.state.plan != self.plan:
            raise UserError(
                f"{self.folder} holds a run of other settings; choose another folder, or start "
                "from=that one"
            )
        remove_leftovers(self.folder)
        self.tracker.start(self.folder, self.settings, self.state.tracker)
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: Any) -> None:
        self.tracker.close(0 if kind is None else 1)

    def _configure(self, config: Config) -> None:
        self.config = config
        self.settings: dict[str, Any] = dataclasses.asdict(config)

    def _use(self, batch_size: int | None = None, recompute: bool = False) -> None:
        """The search takes that batch, or recomputes, as if asked to: keys, and whoever goes on
        from here, know no other.
        """
        search = self.config.search
        changed = {
            "batch_size": batch_size or search.batch_size,
            "recompute": recompute or search.recompute,
        }
        self._configure(
            dataclasses.replace(self.config, search=dataclasses.replace(search, **changed))
        )

    def _plan_memory(self) -> None:
        """Before a run begins: if its search will not fit into memory, makes it fit, as the plan
        says, or refuses it.

        A search that the parent has done, or began with a batch that was chosen for the same one,
        is not planned again.

        Raises:
            UserError: it will not fit, and is not to be changed, or no change makes it fit.
        """
        asked, before = self.config, self.parent and self.parent.memory
        if before is not None and before["asked"] == asked.search.batch_size:
            self._use(before["batch_size"], before.get("recompute", False))
            if self.parent.plan["search"] == self.search_key:
                self.state.memory = before
                return
            self._configure(asked)
        if self.parent is not None and self.parent.result("search", self.search_key) is not None:
            return
        plan = self.memory_plan()
        self.progress.message(f"memory: {plan}")
        if self.config.memory == "fit" and plan.remedy:
            self._use(**plan.remedy)
            self.progress.message(
                f"memory=fit: the search takes {overrides(plan.remedy)}; its other settings stay"
            )
        else:
            plan.require_fit()
        chosen = self.config.search
        self.state.memory = {
            "asked": asked.search.batch_size,
            "batch_size": chosen.batch_size,
            "recompute": chosen.recompute,
        }
        self.state.memory |= {
            "foretold_bytes": plan.peak,
            "available_bytes": plan.available,
            "largest_batch_size": plan.largest,
        }
        if (again := plan.recomputed) is not None:
            self.state.memory["recomputed"] = {
                "foretold_bytes": again.peak,
                "largest_batch_size": again.largest,
            }

    def memory_plan(self) -> MemoryPlan:
        """What the search will take of the memory that there is, foretold by trials, which take
        some seconds.

        Raises:
            UserError: a trial failed.
        """
        return planned(self.settings, len(self.splits.weights), available_memory_bytes(self.device))

    # --- what the stages stand on

    @cached_property
    def data(self) -> ImageData:
        data, side = self.source.load(), self.config.data.image_size
        return (data if side is None else data.averaged(side)).to(self.device)

    @cached_property
    def splits(self) -> Splits:
        settings = self.config.data
        return split(
            self.data.train.labels,
            1 - settings.architecture_share,
            Streams(self.config.seed).host("split"),
            limit=settings.train_limit,
        )

    @cached_property
    def budget(self) -> Budget:
        """The limits on architectures, of the search, of what it compares with and of what is
        derived.
        """
        limits = self.config.budget.limits()
        tables = (
            {"latency_ms": self.latency()} if self.config.budget.measures else {}
        )  # measuring one takes a while
        return Budget(self.space, self.data.task, limits, tables)

    @cached_property
    def input_shape(self) -> tuple[int, int, int]:
        return (self.data.channels, *self.data.size)

    @property
    def init(self) -> str:
        """What the derived network is trained from: scratch, inherit, or warm for the weights of
        another run.
        """
        return "warm" if self.config.retrain.warm_start is not None else self.config.retrain.init

    def fidelity(self, stage: str) -> dict[str, Any]:
        """How cheaply ``search`` or ``retrain`` judges: each setting that says so, its value, and
        that of the paper or the data.
        """
        form = "search" if stage == "search" or self.init == "inherit" else "evaluation"
        full = {"search": SearchSettings, "retrain": RetrainSettings}[stage]()
        images = len(self.splits.weights) + len(self.splits.architecture)
        settings = [("epochs", f"{stage}.epochs", getattr(self.config, stage).epochs, full.epochs)]
        settings += self.space.sizes(form)
        settings += [
            ("training images", "data.train_limit", images, len(self.data.train)),
            (
                "image size",
                "data.image_size",
                list(self.data.size),
                list(self.data.source_size or self.data.size),
            ),
        ]
        return {
            name: {"setting": setting, "value": value, "full": whole}
            for name, setting, value, whole in settings
        }

    def finished(self, stage: str, key: str) -> Any | None:
        """The result of ``stage`` if this run or its parent has it; the parent's is taken over,
        with checkpoint and metrics.
        """
        result = self.state.result(stage, key)
        if (
            result is None
            and self.parent is not None
            and (result := self.parent.result(stage, key)) is not None
        ):
            inherited = Checkpoints(self.parent.folder / "checkpoints").load(stage, key)
            if inherited is not None:
                self.checkpoints.save(stage, inherited)
            for row in read_rows(self.parent.folder / "metrics.jsonl"):
                if row.pop("stage") == stage:
                    self.tracker.log(
                        stage, row.pop("step"), {k: v for k, v in row.items() if v is not None}
                    )
            self.commit(stage, key, result)
        return result

    def commit(self, stage: str, key: str, result: Any) -> Any:
        """Records that ``stage`` is finished: from here on it is not run again.

        Raises:
            Stopped: the run was asked to stop.
        """
        self.state.stages[stage] = {"key": key, "result": result}
        self.state.tracker = self.tracker.state_dict()
        self.state.write()
        write_json(self.folder / "results.json", self.results())
        self.stop.check()
        return result

    # --- keys: everything that a result depends on

    @property
    def weights_key(self) -> str:
        """Of all that makes the weights of another method's search fit to start from: their shapes,
        and the images they saw.
        """
        s, data = self.settings, self.settings["data"]
        images = (
            data["source"],
            data["architecture_share"],
            data["train_limit"],
            data["image_size"],
            s["seed"],
        )
        return key_of(s["space"]["_target_"], self.space.settings("search"), *images)

    @property
    def plain_search_key(self) -> str:
        s = self.settings
        parts = (
            "data",
            "seed",
            "precision",
            "sampler",
            "learner",
            "modifier",
            "guard",
            "search",
            "budget",
        )
        watched = (
            s["instruments"]["images"] if s["guard"] else None
        )  # what is measured changes nothing, unless a guard acts on it
        s = s | {
            "search": {name: value for name, value in s["search"].items() if name != "recompute"}
        }  # nor does that
        return key_of(self.weights_key, watched, *(s[part] for part in parts))

    @property
    def start_key(self) -> str | None:
        """The key of the parent's search, if this search starts from its weights: they fit, but the
        method is another.
        """
        origin = self.state.origin
        if (
            origin is None
            or origin["plain_key"] == self.plain_search_key
            or origin["weights_key"] != self.weights_key
        ):
            return None
        search = self.config.search
        if (
            search.depths or search.widths or search.supernets > 1
        ):  # which start anew, or narrower than the parent ended
            return None
        return origin["key"]

    @property
    def search_key(self) -> str:
        origin = self.state.origin
        if origin and origin["plain_key"] == self.plain_search_key:
            return origin["key"]  # the parent's search is ours, wherever it started from
        return key_of(self.plain_search_key, self.start_key)

    @property
    def latency_key(self) -> str:
        s = self.settings
        budget = (s["budget"]["latency_table"], s["budget"]["latency_batch"])
        return key_of(
            s["space"], s["device"], s["threads"], self.data.classes, self.input_shape, budget
        )

    @property
    def derive_key(self) -> str:
        if self.given is not None:
            return key_of(self.given.to_dict(), self.settings["space"])
        if self.config.shortlist.size == 1:
            return self.judged_key
        return key_of(self.judged_key, self.training_key, self.settings["shortlist"])

    @property
    def judged_key(self) -> str:
        return key_of(
            self.search_key,
            self.settings["searcher"],
            self.settings["judge"],
            self.settings["budget"],
        )

    @property
    def training_key(self) -> str:
        """Of how every architecture is trained from scratch."""
        s = self.settings
        recipe = {k: v for k, v in s["retrain"].items() if k not in ("seeds", "init", "warm_start")}
        return key_of(s["space"], s["data"], recipe, s["seed"], s["precision"])

    def retrain_key(self, name: str, architecture: Architecture, init: str) -> str:
        start = {"inherit": self.search_key, "warm": self.state.warm_start}.get(init)
        return key_of(name, architecture.to_dict(), self.training_key, start)

    @property
    def export_key(self) -> str:
        return self.retrain_key("retrain/0", self.derive(), self.init)

    @property
    def plan(self) -> dict[str, str]:
        """What this configuration computes; a folder goes on with a configuration of the same plan
        only.
        """
        s = self.settings
        training = key_of(s["space"], s["data"], s["seed"], s["precision"])
        return {
            "search": self.search_key,
            "derive": self.derive_key,
            "retrain": key_of(training, s["retrain"]),
            "baseline": key_of(training, s["baseline"], s["budget"]),
            "rank": key_of(s["rank"]),
        }

    # --- stages

    def latency(self) -> CostTable:
        """The latency table of the space: the user's own, or measured on this device and compared
        with whole networks.

        It is kept as ``latency.csv`` and read from there ever after, so that a run which goes on
        computes the same.
        """
        key, path, settings = self.latency_key, self.folder / "latency.csv", self.config.budget
        if (
            self.parent is not None
            and self.parent.result("latency", key) is not None
            and not path.exists()
        ):
            write_text(path, (self.parent.folder / path.name).read_text(encoding="utf-8"))
        if self.finished("latency", key) is not None:
            return read_table(path, self.space)
        started = time.perf_counter()
        if settings.latency_table is not None:
            table = read_table(Path(settings.latency_table), self.space)
            result = {"table": settings.latency_table}
        else:
            streams, batch_size = Streams(self.config.seed), settings.latency_batch
            bench = Bench(self.space, self.data.task, self.device, streams, batch_size)
            with self.progress.stage("latency", 2) as update:
                table = measured(bench)
                update(1, {})
                error = latency_error(table, bench)
                update(2, {})
            result = dataclasses.asdict(error)
        if (
            self.state.plan is not None
        ):  # a run that was begun, not a mere trial, which writes nothing
            write_table(path, table)
            self.commit("latency", key, result | {"seconds": time.perf_counter() - started})
        return table

    def search_stage(self, start: dict[str, torch.Tensor] | None = None) -> SearchStage:
        """The search stage, fresh, or with the weights ``start``."""
        return SearchStage(
            self.space,
            self.data,
            self.splits,
            self.sampler,
            self.learner,
            self.config.search,
            augment=self.search_augment,
            seed=self.config.seed,
            device=self.device,
            precision=self.config.precision,
            budget=self.budget,
            modifiers=self.modifiers,
            instruments=self.config.instruments,
            guards=self.guards,
            say=self.progress.message,
            start=start,
            key=self.search_key,
        )

    def search(self) -> dict[str, Any]:
        """Trains the supernet."""
        key = self.search_key
        if (done := self.finished("search", key)) is not None:
            return done
        start = None
        if self.start_key is not None and not self.checkpoints.path("search").exists():
            start = self._start_weights()
            self.progress.message(f"search starts from the weights of {self.state.parent}")
        stage = self.search_stage(start)
        cost = dataclasses.asdict(self._train(stage))
        result = cost | {
            "parts": {name: {"seconds": seconds} for name, seconds in cost["parts"].items()},
            "guards": stage.fired,
            "epochs": self.config.search.epochs,
            "supernets": self.config.search.supernets,
            "method": self.config.method,
            "warm_start": self._searched_before() if self.start_key else None,
            "fidelity": self.fidelity("search"),
            "weights_key": self.weights_key,
            "plain_key": self.plain_search_key,
        }
        return self.commit("search", key, result)

    def _searched_before(self) -> dict[str, Any]:
        """The search that this one starts from, and so on back: its folder, its method and what it
        cost.
        """
        return {"folder": self.state.parent} | {
            k: v for k, v in self.state.origin.items() if not k.endswith("key")
        }

    def _start_weights(self) -> dict[str, torch.Tensor]:
        checkpoints = Checkpoints(Path(self.state.parent) / "checkpoints")
        saved = checkpoints.load("search", self.start_key)
        if saved is None:
            raise UserError(
                f"{checkpoints.path('search')} is missing: the search starts from the weights in "
                "it; restore it"
            )
        return saved["state"]["supernet"]

    def trained_supernet(self) -> SearchStage:
        """The search stage as it was when it ended."""
        self.search()
        stage = self.search_stage()
        saved = self.checkpoints.load("search", self.search_key)
        if saved is None:
            raise UserError(
                f"{self.checkpoints.path('search')} is missing: the trained supernet was there; "
                "restore it"
            )
        stage.load_state_dict(saved["state"])
        return stage

    def derive(self) -> Architecture:
        """The architecture: the one given in the configuration, or the searcher's best."""
        key = self.derive_key
        shortlist = None
        if self.given is None:
            self.search()
            if self.config.shortlist.size > 1:
                shortlist = self._train_shortlist()
        done = self.finished("derive", key)
        if done is None:
            if self.given is not None:
                architecture = self.given
                nothing = dict.fromkeys(("evaluated", "judgements", "images"), 0)
                found = {"searcher": "given", "inherited_accuracy": None, "seconds": 0.0} | nothing
            elif shortlist is not None:
                architecture, found = self.space.decode(shortlist["best"]), self._judged()["found"]
            else:
                (architecture, *_), found = self._search_architectures()
            task = self.data.task
            cost = count(self.space.standalone(architecture, task), task)
            priced = {
                metric: table.of(architecture) for metric, table in self.budget.measured.items()
            }
            costs = dataclasses.asdict(cost) | priced
            done = {"architecture": self._describe(architecture), "cost": costs, "derive": found}
            if shortlist is not None:
                done["shortlist"] = shortlist
            self.commit("derive", key, done)
        if not (path := self.folder / "architecture.json").exists():
            write_json(path, done["architecture"])
        for number, point in enumerate(done["derive"].get("pareto", []), start=1):
            if not (path := self.folder / "pareto" / f"{number:02}.json").exists():
                write_json(path, self._describe(self.space.decode(point["text"])))
        return Architecture.from_dict(done["architecture"])

    def _describe(self, architecture: Architecture) -> dict[str, Any]:
        described = architecture.to_dict() | {"text": self.space.encode(architecture)}
        if isinstance(self.space, Drawable):
            described["graph"] = self.space.graph(architecture)
        return described

    def judge(
        self,
        supernet: nn.Module,
        judged: Architecture | Mixture,
        share: float = 1.0,
        recalibration_batches: int | None = None,
    ) -> Judgement:
        """The accuracy of an architecture, or of a mixture, with the weights of ``supernet`` on the
        first ``share`` of the architecture split, always the same.

        ``recalibration_batches`` is that of the configuration unless it is given.
        """
        settings = self.config.judge
        few_batches = (
            settings.recalibration_batches
            if recalibration_batches is None
            else recalibration_batches
        )

        def batches(indices: torch.Tensor):
            return evaluation_batches(
                self.data.train,
                indices,
                settings.batch_size,
                mean=self.data.mean,
                std=self.data.std,
                device=self.device,
            )

        calibration = None
        if few_batches:
            few = self.splits.weights[: few_batches * settings.batch_size]
            calibration = (images for images, _ in batches(few))
        mixture = self.space.path(judged) if isinstance(judged, Architecture) else judged
        images = self.splits.architecture[: max(1, round(share * len(self.splits.architecture)))]
        task = self.data.task
        return finite(
            "search", inherited_accuracy(supernet, mixture, batches(images), task, calibration)
        )

    @contextmanager
    def _kept_judgements(
        self, key: str
    ) -> Iterator[tuple[dict[tuple[Architecture, float], Judgement], Callable[[], None]]]:
        """Judgements by architecture and share, kept in a file; and what to call before each: it
        saves now and then, and stops.
        """
        path, saved = self.folder / "checkpoints" / f"judged-{key}.json", time.monotonic()
        known = {}
        if path.exists():
            for entry in read_json(path):
                known[Architecture.from_dict(entry), entry["share"]] = Judgement(
                    **entry["judgement"]
                )

        def save() -> None:
            entries = [
                a.to_dict() | {"share": s, "judgement": dataclasses.asdict(j)}
                for (a, s), j in known.items()
            ]
            write_json(path, entries)

        def about_to_judge() -> None:
            nonlocal saved
            if self.stop.signum is not None:
                save()
                self.stop.check()
            if time.monotonic() - saved >= self.config.checkpoint.every_seconds:
                save()
                saved = time.monotonic()

        yield known, about_to_judge
        save()

    def judged(
        self,
        key: str,
        architectures: Sequence[Architecture],
        judge: Callable[[Architecture], Judgement],
        update: Callable[[int, dict[str, float]], None],
    ) -> list[Judgement]:
        """Judges each of ``architectures``, once in a run for each ``key``; a stopped run goes on
        where it was.
        """
        with self._kept_judgements(key) as (known, about_to_judge):
            for number, architecture in enumerate(architectures, start=1):
                if (architecture, 1.0) not in known:
                    about_to_judge()
                    known[architecture, 1.0] = judge(architecture)
                update(number, figures(known[architecture, 1.0]))
        return [known[architecture, 1.0] for architecture in architectures]

    def _search_architectures(self) -> tuple[list[Architecture], dict[str, Any]]:
        """The searcher's best architectures, at most as many as the shortlist has, best first; and
        what is on record of them.
        """
        stage = self.trained_supernet()
        name = option(self.searcher)
        started = time.perf_counter()
        scores, tuned = stage.scores(), {}
        if isinstance(self.searcher, PerturbationSelection):
            scores, tuned = self._perturbed(stage)
        self.searcher.begin(self.budget, scores, Streams(self.config.seed).host("searcher"))
        with (
            self._kept_judgements(self.judged_key) as (known, about_to_judge),
            self.progress.stage("derive", self.searcher.total) as update,
        ):

            def judge(architecture: Architecture, share: float) -> Judgement:
                about_to_judge()
                return self.judge(stage.supernet, architecture, share)

            result = search(
                self.searcher,
                judge,
                known,
                lambda count, judgement: update(count, figures(judgement)),
            )
        costs = {
            architecture: {
                k: int(v) if v.is_integer() else v
                for k, v in self.budget.costs(architecture).items()
            }
            for architecture in result.judged
        }
        for index, (architecture, judgement) in enumerate(result.judged.items(), start=1):
            self.tracker.log("derive", index, figures(judgement) | costs[architecture])
        front = (
            result.front(lambda architecture: costs[architecture][self.config.judge.cost])
            if len(costs) > 1
            else []
        )
        best = sorted(result.judged, key=lambda architecture: order(result.judged[architecture]))
        return best[: self.config.shortlist.size], {
            "searcher": name,
            "inherited_accuracy": result.judgement.accuracy,
            "standard_error": result.judgement.standard_error,
            "evaluated": len(result.judged),  # on all validation images
            "judgements": len(result.told),  # and on shares of them
            "images": result.images,
            "seconds": time.perf_counter() - started + tuned.pop("earlier_seconds", 0.0),
            **tuned,
            "pareto": [
                {"text": self.space.encode(one)} | costs[one] | figures(judgement)
                for one, judgement in front
            ],
        }

    def _perturbed(self, stage: SearchStage) -> tuple[Logits, dict[str, Any]]:
        """The scores of a derivation by perturbation, for which the supernet of ``stage`` is tuned,
        and how it came about.
        """
        started = time.perf_counter()
        projection = self.searcher.projection(
            self.budget,
            lambda mixture, share: self.judge(stage.supernet, mixture, share),
            lambda: stage.sampler.mean(stage.detached_logits, 1 - 1 / stage.planned),
            Streams(self.config.seed).host("perturbation"),
        )
        lr = self.searcher.lr or self.config.search.lr / 10
        tuning = TuningStage(stage, projection, self.searcher.tune_epochs, lr, key=self.judged_key)
        cost = self._train(tuning)
        earlier = cost.seconds - (time.perf_counter() - started)
        return projection.scores(), {
            "earlier_seconds": max(earlier, 0.0),
            "tuned_steps": cost.steps,
            "kept": projection.kept,
        }

    def _judged(self) -> dict[str, Any]:
        """What the searcher found, as a stage of its own: training its best takes so long that it
        must not be asked twice.
        """
        key = key_of(self.judged_key, self.config.shortlist.size)
        if (done := self.finished("judged", key)) is None:
            best, found = self._search_architectures()
            done = self.commit(
                "judged", key, {"best": [self.space.encode(one) for one in best], "found": found}
            )
        return done

    def _train_shortlist(self) -> dict[str, Any]:
        """Trains the searcher's best from scratch, but for the held-out images by which it chooses
        among them.
        """
        candidates: list[dict[str, Any]] = []
        best = self._judged()["best"]
        for index in range(len(best)):
            name = f"candidate/{index}"
            key = key_of(name, best[: index + 1], self.training_key, self.settings["shortlist"])
            if (done := self.finished(name, key)) is None:
                complete = [one["curve"] for one in candidates if not one["ended"]]
                done = self._train_candidate(name, key, self.space.decode(best[index]), complete)
            candidates.append(done)
        winner = max(
            (one for one in candidates if not one["ended"]), key=lambda one: one["curve"][-1]
        )
        shown = ("text", "epochs", "ended", "held_out_accuracy", "upper_bound")
        return {
            "best": winner["text"],
            "seconds": sum(one["seconds"] for one in candidates),
            "candidates": [{name: one[name] for name in shown} for one in candidates],
        }

    def candidate_stage(
        self, name: str, key: str, architecture: Architecture, complete: list[list[float]]
    ) -> CandidateStage:
        """The training of a candidate, fresh; ``complete`` are the curves of those before it that
        were not ended.

        Its chance is that of no retraining: what luck it was chosen by must not be in the figures
        that are reported.
        """
        return self._stage_of(
            CandidateStage,
            name,
            architecture,
            self.shortlist_splits.weights,
            Streams(self.config.seed * 1000 + 999),
            key,
            held_out=self.shortlist_splits.architecture,
            shortlist=self.config.shortlist,
            finished=complete,
        )

    @cached_property
    def shortlist_splits(self) -> Splits:
        """The training images that a candidate trains on, and those held out to judge it
        (``architecture``).
        """
        images = self.retrain_images
        parts = ("images that candidates train on", "images held out by shortlist.held_out")
        chance, share = (
            Streams(self.config.seed).host("shortlist"),
            1 - self.config.shortlist.held_out,
        )
        found = split(self.data.train.labels.cpu()[images], share, chance, parts=parts)
        return Splits(images[found.weights], images[found.architecture])

    def _train_candidate(
        self, name: str, key: str, architecture: Architecture, complete: list[list[float]]
    ) -> dict[str, Any]:
        stage = self.candidate_stage(name, key, architecture, complete)
        cost = self._train(stage)
        result = dataclasses.asdict(cost) | {
            "text": self.space.encode(architecture),
            "epochs": len(stage.curve),
            "ended": stage.ended,
            "held_out_accuracy": stage.curve[-1],
            "upper_bound": None,
            "curve": stage.curve,
        }
        if stage.ended:
            epochs, best = self.config.retrain.epochs, max(curve[-1] for curve in complete)
            result["upper_bound"] = upper_bound(
                stage.curve, epochs, self.config.shortlist.confidence, complete
            )
            self.progress.message(
                f"{name}: ended after {len(stage.curve)} of {epochs} epochs; it would come to an "
                "accuracy of at most "
                f"{result['upper_bound']:.2%} on the held-out images, where one before it has "
                f"{best:.2%}"
            )
        return self.commit(name, key, result)

    def retrain(self) -> None:
        """Trains the derived architecture from scratch, once a seed, and the random architectures
        beside it.
        """
        architecture = self.derive()
        for index in range(self.config.retrain.seeds):
            self.train(f"retrain/{index}", architecture, index, self.init)
        rng = Streams(self.config.seed).host("random_architectures")
        for index in range(self.config.baseline.architectures):
            self.train(f"random/{index}", self.budget.random(rng), index, "scratch")

    def retrain_stage(
        self,
        name: str,
        architecture: Architecture,
        index: int,
        init: str,
        start: Any = None,
        form: Form = "evaluation",
    ) -> RetrainStage:
        """A retrain stage, fresh, or with what it shares with the weights ``start`` of another
        network. A network with new weights has the given ``form``.

        Its chance comes from the run's seed and ``index`` alone: random architectures get the same.
        """
        streams, key = (
            Streams(self.config.seed * 1000 + index),
            self.retrain_key(name, architecture, init),
        )
        return self._stage_of(
            RetrainStage,
            name,
            architecture,
            self.retrain_images,
            streams,
            key,
            init=init,
            start=start,
            form=form,
        )

    @property
    def retrain_images(self) -> torch.Tensor:
        return torch.cat([self.splits.weights, self.splits.architecture]).sort().values

    def _stage_of(
        self,
        kind,
        name,
        architecture,
        images,
        streams,
        key,
        init="scratch",
        start=None,
        form="evaluation",
        **more,
    ) -> RetrainStage:
        supernet = self.trained_supernet().supernet if init == "inherit" else None
        with streams.initialising("network"):
            if supernet is not None:
                network = self.space.inherit(supernet, architecture)
            else:
                network = self.space.standalone(architecture, self.data.task, form)
        if start is not None:
            shared = self.space.taken_over(start["weights"], start["of"], network, architecture)
            network.load_state_dict(shared, strict=False)
        return kind(
            name,
            network,
            self.data,
            images,
            self.config.retrain,
            augment=self.augment,
            streams=streams,
            device=self.device,
            precision=self.config.precision,
            key=key,
            **more,
        )

    def _warm_start(self, index: int) -> dict[str, Any]:
        """The weights that retraining number ``index`` starts from, and the architecture ``of``
        which they are.
        """
        keys, folder = self.state.warm_start, Path(self.config.retrain.warm_start)
        name = f"retrain/{index % len(keys)}"
        saved, done = None, State.read(folder).result(name, keys[index % len(keys)])
        if done is not None:
            saved = Checkpoints(folder / "checkpoints").load(name, keys[index % len(keys)])
        if saved is None:
            raise UserError(
                f"retrain.warm_start={folder}: the network {name} that was there when this run "
                "began is gone; restore it"
            )
        weights = saved["state"]["average"] or saved["state"]["network"]
        of = self.space.decode(done["text"])
        return {"from": str(folder), "weights": weights, "of": of}

    def _taken_over(
        self, start: dict[str, Any], name: str, network: nn.Module, architecture: Architecture
    ) -> dict[str, Any]:
        """How many of the network's weights come from ``start``; for the record and the log."""
        sizes = {name: weight.numel() for name, weight in network.named_parameters()}
        shared = self.space.taken_over(start["weights"], start["of"], network, architecture)
        taken = sum(sizes[name] for name in shared if name in sizes)
        self.progress.message(
            f"{name}: {taken:,} of {sum(sizes.values()):,} weights are taken over from "
            f"{start['from']}"
        )
        return {"from": start["from"], "weights": taken, "of": sum(sizes.values())}

    def train(self, name: str, architecture: Architecture, index: int, init: str) -> dict[str, Any]:
        """Trains ``architecture`` as the stage ``name``, and tests it, once."""
        key = self.retrain_key(name, architecture, init)
        if (done := self.finished(name, key)) is not None:
            return done
        start = self._warm_start(index) if init == "warm" else None
        stage = self.retrain_stage(name, architecture, index, init, start)
        about = {"fidelity": self.fidelity("retrain")}
        if start is not None:
            about["warm_start"] = self._taken_over(start, name, stage.network, architecture)
        cost = self._train(stage)
        test = torch.arange(len(self.data.test))
        batches = evaluation_batches(
            self.data.test,
            test,
            self.config.judge.batch_size,
            mean=self.data.mean,
            std=self.data.std,
            device=self.device,
        )
        judgement = finite(
            name, evaluate(stage.trained().eval(), batches, self.data.task)
        )  # the one time that the test set is touched
        self.tracker.log(
            name, stage.steps, {"test_accuracy": judgement.accuracy, "test_loss": judgement.loss}
        )
        size = count(stage.trained(), self.data.task)
        return self.commit(
            name,
            key,
            dataclasses.asdict(cost)
            | {
                "accuracy": judgement.accuracy,
                "loss": judgement.loss,
                "text": self.space.encode(architecture),
            }
            | dataclasses.asdict(size)
            | about,
        )

    def _train(self, stage: SearchStage | RetrainStage) -> StageCost:
        return run_stage(stage, self.checkpoints, self.tracker, self.progress, self.stop)

    def trained_network(self) -> nn.Module:
        """The derived network, trained with the first seed (never the best one: that would choose
        by the test set).
        """
        self.retrain()
        stage = self.retrain_stage("retrain/0", self.derive(), 0, self.init)
        saved = self.checkpoints.load(stage.name, stage.key)
        if saved is None:
            raise UserError(
                f"{self.checkpoints.path('retrain/0')} is missing: the trained network was there; "
                "restore it"
            )
        stage.load_state_dict(saved["state"])
        return stage.trained().eval()

    def export(self) -> Path:
        """Writes the trained network in every form, each compared with the original."""
        from supernet.export import export_network  # onnxruntime takes seconds to import

        network = self.trained_network().to("cpu")
        architecture, folder = self.derive(), self.folder / "export"
        data = {
            "mean": self.data.mean.tolist(),
            "std": self.data.std.tolist(),
            "data": self.config.data.name,
        }
        if self.data.source_size is not None:
            data["averaged_down_from"] = list(
                self.data.source_size
            )  # whoever uses the network must make images as small first
        with self.progress.stage("export", 1) as update:
            export_network(
                network,
                architecture,
                self.space,
                task=self.data.task,
                folder=folder,
                metadata=data,
            )
            update(1, {})
        self.tracker.artifact("architecture", "architecture", [self.folder / "architecture.json"])
        self.tracker.artifact("export", "model", sorted(folder.iterdir()))
        self.commit("export", self.export_key, {"folder": "export"})
        return folder

    def report(self) -> Path:
        """Writes ``report.html`` from what the folder holds."""
        from supernet.report.page import write_report  # matplotlib takes a second to import

        write_json(self.folder / "results.json", self.results())
        return write_report(self.folder)

    def evaluate(self) -> Judgement:
        """Judges the architecture of the configuration, or else the derived one, with the weights
        of a search that is done.

        Raises:
            UserError: there is no such search, or no architecture.
        """
        found = self.state.stages
        if self.state.result("search", self.search_key) is None:
            raise UserError(
                f"{self.folder} holds no trained supernet of these settings; run supernet search "
                "first"
            )
        if self.given is None and "derive" not in found:
            raise UserError(
                f"{self.folder} has no derived architecture yet; say architecture=..., or run "
                "supernet derive first"
            )
        architecture = self.given or Architecture.from_dict(
            found["derive"]["result"]["architecture"]
        )
        return self.judge(self.trained_supernet().supernet, architecture)

    def check(self) -> Iterator[str]:
        """Tries one step of the search and of a retraining, and says how large everything is;
        writes nothing.
        """
        stage = self.search_stage()
        weights = sum(parameter.numel() for parameter in stage.supernet.parameters())
        yield f"data: {len(self.data.train)} training and {len(self.data.test)} test images of shape {self.input_shape}"
        yield f"splits: {len(self.splits.weights)} images for the weights, {len(self.splits.architecture)} for the architecture"
        yield f"supernet: {self.space.name}, {weights:,} weights; {stage.steps} steps of the search"
        fits = True
        if self.config.memory != "ignore":
            plan = self.memory_plan()
            yield f"memory: {plan}"
            if self.config.memory == "fit" and plan.remedy:
                yield f"memory=fit: the search would take {overrides(plan.remedy)}"
                self._use(**plan.remedy)
                stage = self.search_stage()
            else:
                plan.require_fit()
            retraining = planned_retraining(
                self.settings, len(self.retrain_images), available_memory_bytes(self.device)
            )
            yield f"memory of retraining {'it' if self.given else 'the largest network'}: {retraining}"
            fits = retraining.fits
        started = time.perf_counter()
        stage.step(0)
        yield f"one search step: {time.perf_counter() - started:.2f} s (the first; later ones are faster)"
        architecture = self.space.random(Streams(self.config.seed).host("check"))
        network = self.retrain_stage("check", architecture, 0, "scratch")
        if fits:
            network.step(0)
        cost = count(network.network, self.data.task)
        yield f"a random network: {cost.params:,} parameters, {cost.madds:,} multiply-adds; {network.steps} steps of retraining"
        yield f"device: {describe(self.device)}; {'all is well' if fits else 'all is well but the memory of the retraining'}"

    def run(self) -> None:
        """The main job."""
        self.retrain()
        if (
            self.state.result("export", self.export_key) is None
            or not (self.folder / "export" / "bundle.json").exists()
        ):
            self.export()
        self.report()
        self.tracker.summary(self.results())

    # --- results

    def results(self) -> dict[str, Any]:
        """Every figure so far, in the form of ``results.json``."""
        stages = {name: entry["result"] for name, entry in self.state.stages.items()}
        value: dict[str, Any] = {
            "schema": SCHEMA,
            "name": self.config.name,
            "seed": self.config.seed,
            "space": self.space.name,
            "method": self.config.method,
            "data": self.config.data.name,
            "parent": self.state.parent,
        }
        if self.state.memory is not None:
            value["memory"] = self.state.memory
        if "latency" in stages:
            value["latency"] = stages["latency"]
        if "search" in stages and self.given is None:
            value["search"] = {k: v for k, v in stages["search"].items() if not k.endswith("key")}
        value |= stages.get("derive", {})
        if (found := trained(stages, "retrain")) is not None:
            first = stages["retrain/0"]
            value["retrain"] = found | {
                "epochs": self.config.retrain.epochs,
                "init": self.config.retrain.init,
            }
            value["retrain"] |= {
                name: first[name] for name in ("fidelity", "warm_start") if name in first
            }
        chance = trained(stages, "random")
        if chance:
            value["random_baseline"] = chance
        if "rank" in stages:
            value["rank"] = stages["rank"]
        value["environment"] = environment(self.device)
        value["total_seconds"] = sum(result.get("seconds", 0.0) for result in stages.values())
        value["total_seconds"] += stages.get("derive", {}).get("derive", {}).get("seconds", 0.0)
        value["total_seconds"] += sum(
            before["seconds"] for before in searches_before(value.get("search", {}))
        )
        return value


def searches_before(search: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The searches that a search started from, the last first: the results of each, one in the
    other.
    """
    while search := search.get("warm_start"):
        yield search


def same_computation(config: Config, folder: Path) -> bool:
    """Whether ``folder`` can go on with ``config``: it computes what that folder's own
    configuration does.
    """
    run = Run(config, folder)
    return run.plan == run.state.plan


def trained(stages: dict[str, Any], kind: str) -> dict[str, Any] | None:
    """The results of the stages ``kind/0``, ``kind/1``, ... taken together."""
    runs = [stages[f"{kind}/{i}"] for i in range(len(stages)) if f"{kind}/{i}" in stages]
    if not runs:
        return None
    accuracy = [run["accuracy"] for run in runs]
    mean, interval = mean_and_interval(accuracy)
    return {
        "accuracy": accuracy,
        "mean": mean,
        "ci95": interval,
        "seconds": sum(run["seconds"] for run in runs),
        "architectures": [
            {k: run[k] for k in ("text", "params", "madds", "accuracy")} for run in runs
        ],
    }


def retrained(folder: Path) -> list[dict[str, Any]]:
    """The finished retrainings of the derived network in the folder of a run, by seed, each with
    its key.

    Raises:
        UserError: there are none.
    """
    stages = State.read(folder).stages
    found = [stages[f"retrain/{i}"] for i in range(len(stages)) if f"retrain/{i}" in stages]
    if not found:
        raise UserError(
            f"retrain.warm_start={folder}: holds no retrained network; give the folder of a run "
            "whose retraining is done"
        )
    return found


def chosen(kind: str, node: Any, name: str) -> Any:
    """The node of a modifier or guard, unless it holds nothing but settings of one that was not
    chosen.
    """
    if isinstance(node, Mapping) and "_target_" not in node:
        raise UserError(
            f"{kind}.{name}: settings of a {kind} that is not chosen; add it, "
            f"{kind}=[...,{name}], or drop them, ~{kind}.{name}"
        )
    return node


def option(part: Any) -> str:
    """The name by which a sampler, learner or searcher is chosen: that of its module, as of its
    YAML.
    """
    return type(part).__module__.rpartition(".")[2]


def read_architecture(space: Space, text: str) -> Architecture:
    """An architecture from the space's own notation, from JSON, or from the path of a JSON file."""
    text = text.strip()
    if text.startswith("{"):
        return space.validate(Architecture.from_json(text))
    if text.endswith(".json"):
        return space.validate(Architecture.from_dict(read_json(text)))
    return space.decode(text)


def figures(judgement: Judgement) -> dict[str, float]:
    """What is shown and logged of a judgement."""
    return {"accuracy": judgement.accuracy, "loss": judgement.loss}


def finite(stage: str, judgement: Judgement) -> Judgement:
    """Returns the judgement of what ``stage`` trained, unless its loss is not finite."""
    if not math.isfinite(judgement.loss):
        raise UserError(
            f"{stage}: what was trained has a loss of {judgement.loss}; lower the learning rate "
            "or clip gradients more"
        )
    return judgement
