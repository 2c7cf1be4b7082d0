"""Turns a configuration into checked parts. Every command begins with this.

It writes nothing and sets nothing global. Data are loaded when they are first used.
"""

import dataclasses
from collections.abc import Mapping
from functools import cached_property
from typing import Any

import torch

from supernet.config import Config, build, paths, with_setting
from supernet.cost.rivals import require_rivals
from supernet.data import Augment, ImageData, Source, Splits, split
from supernet.device import choose_device, cores, require_room
from supernet.errors import UserError, enough_memory, require
from supernet.files import content_of, file_of
from supernet.mixture import Architecture
from supernet.randomness import Streams
from supernet.searchers.perturbation import PerturbationSelection
from supernet.searchers.searcher import Searcher
from supernet.spaces.growing.space import GrowingSpace
from supernet.spaces.space import Space, read_architecture
from supernet.task import Task
from supernet.track.interface import Tracker
from supernet.train.phases import require_one_phase
from supernet.train.search import PARTS, require_search

# So many threads, or jobs at once, are allowed on every machine, and more if it has more cores.
# With a thousand, a machine of few cores seems to hang.
AT_ONCE = 64

SOURCE = "data.source"

KINDS: dict[str, type] = PARTS | {"searcher": Searcher}  # group -> the class of its options

# The name of a setting -> its value, and a checksum of what it names.
Contents = dict[str, dict[str, Any]]

# Settings that no result depends on. A run's folder can be continued with another configuration if
# the two differ only in these.
CHANGE_NOTHING = {
    "name",
    "method",
    "device",
    "memory",
    "threads",
    "jobs",
    "checkpoint",
    "tracker",
    "study",
    "checklist",
    "instrument",
    "measure",
}


class Setup:
    """The parts of one configuration, built and checked against each other.

    Raises:
        UserError: a part does not exist, a setting is wrong, or two parts do not go together.
    """

    def __init__(self, config: Config, contents: Contents | None = None):
        """``contents`` are known in a worker process: the main process has computed them."""
        if contents is not None:
            vars(self)["contents"] = contents
        self.config = config
        self.settings: dict[str, Any] = dataclasses.asdict(config)
        if config.data.task is None:  # keys are those of before there was this setting
            del self.settings["data"]["task"]
        if not config.baseline.rivals:
            del self.settings["baseline"]["rivals"]
        if not config.growth.models:
            del self.settings["growth"]
        self.space: Space = build(config.space, "space", Space)
        self.sampler, self.learner = self.fresh("sampler"), self.fresh("learner")
        self.modifiers = self.several("modifier")
        self.guards = self.several("guard")
        self.instruments = self.several("instrument")
        self.searcher = self.fresh("searcher")
        self.augment = build(config.data.augment, "data.augment", Augment)
        self.search_augment = build(config.data.search_augment, "data.search_augment", Augment)
        self.source = build(config.data.source, SOURCE, Source)
        own = config.data.task
        self.own_task = None if own is None else build(own, "data.task", Task)
        build(config.tracker, "tracker", Tracker)
        self.given: Architecture | None = None
        if config.architecture is not None:
            self.given = read_architecture(self.space, config.architecture)
        self.check_together()

    def several(self, group: str) -> dict[str, Any]:
        """The chosen options of a group of which several can be chosen: name -> part."""
        nodes = getattr(self.config, group)
        return {
            name: build(chosen(group, node, name), f"{group}.{name}", KINDS[group])
            for name, node in nodes.items()
        }

    def check_together(self) -> None:
        """Raises a UserError if two parts do not fit together, or do not fit this machine."""
        config, searcher, _ = self.config, self.searcher, self.device
        at_once = max(AT_ONCE, cores())
        if config.threads is not None:
            require("threads", config.threads, least=1, most=at_once)
        require("jobs", self.workers, least=1, most=at_once)
        never_moves = self.learner.moves != self.sampler.scores_from
        if searcher.needs_scores and never_moves and self.given is None:
            parts = ("searcher", "sampler", "learner")
            raise UserError(
                f"{' with '.join(f'{part}={option(getattr(self, part))}' for part in parts)}: the "
                f"{self.sampler.scores_from} never moves, so the architecture would be arbitrary; "
                "choose searcher=random or a learner that moves it"
            )
        if not config.search.supernets:
            self.check_without_supernet()
        if self.given is None and searcher.total < config.shortlist.size:
            raise UserError(
                f"shortlist.size={config.shortlist.size}: searcher={option(searcher)} judges at "
                f"most {searcher.total}; choose a smaller shortlist, or another searcher"
            )
        if searcher.cost is not None:
            config.budget.require_cost("searcher.cost", searcher.cost)
        require_rivals(config.baseline.rivals, self.space)
        if config.retrain.init == "inherit":
            self.space.require_inherit()
        self.check_growth()
        if self.guards and self.learner.moves != "logits":
            raise UserError(
                f"guard=[{','.join(self.guards)}] with learner={option(self.learner)}: guards "
                "watch logits; leave them out"
            )
        if self.given is None or config.retrain.init == "inherit":
            require_search(config.search, self.space, self.learner, self.guards)

    def check_without_supernet(self) -> None:
        """Raises a UserError if something needs a supernet, and none is trained."""
        none = f"search.supernets={self.config.search.supernets}: no supernet is trained, and"
        scores = self.searcher.needs_scores or isinstance(self.searcher, PerturbationSelection)
        if scores and self.given is None:
            raise UserError(
                f"{none} searcher={option(self.searcher)} reads what one has learnt; choose "
                "searcher=random, or train one"
            )
        if self.config.retrain.init == "inherit":
            raise UserError(f"{none} retrain.init=inherit takes its weights; leave one of them out")

    @property
    def grows(self) -> bool:
        """Whether the architecture is found by growth, and not by a search."""
        return isinstance(self.space, GrowingSpace) and self.given is None

    def check_growth(self) -> None:
        """Raises a UserError if the space cannot grow, or if something else does not fit growth."""
        config, space = self.config, self.space
        if not isinstance(space, GrowingSpace):
            if config.growth.models:
                raise UserError(
                    f"growth.models={config.growth.models}: the space {space.name} does not grow; "
                    "choose space=growing_cells, or set growth.models=0"
                )
            return
        if self.given is None and not (config.growth.models and self.learner.joint):
            raise UserError(f"the space {space.name} grows; choose method=petridish")
        if config.retrain.init == "inherit":
            raise UserError(
                "retrain.init=inherit: no supernet holds the networks that grow; leave it out"
            )
        if config.shortlist.size > 1 or config.search.supernets > 1 or self.guards:
            raise UserError(
                "growth has no shortlist, no several supernets and no guards; leave out "
                "shortlist.size, search.supernets and guard"
            )
        if config.budget.measures or config.budget.skips is not None:
            raise UserError(
                "budget: of a network that grows, only params and madds can be limited; leave out "
                "budget.latency_ms, budget.latency_table and budget.skips"
            )
        require_one_phase(config.search.phases, "growth")

    def fresh(self, part: str) -> Any:
        """The sampler, learner or searcher, built anew. Such a part keeps what it has learnt."""
        return build(getattr(self.config, part), part, KINDS[part])

    def replaced(self, **search: Any) -> "Setup":
        """The same setup with other settings of ``search``. Loaded data are not loaded again."""
        config = dataclasses.replace(
            self.config, search=dataclasses.replace(self.config.search, **search)
        )
        other = Setup(config)
        loaded = ("data", "splits", "contents")
        vars(other).update({k: v for k, v in vars(self).items() if k in loaded})
        return other

    @cached_property
    def device(self) -> torch.device:
        return choose_device(self.config.device)

    @property
    def workers(self) -> int:
        """How many jobs run at once: as many as the setting ``jobs`` says.

        ``auto`` is one for each core that the threads of a job leave. On an accelerator it is one,
        because jobs would have to share the accelerator.
        """
        if self.config.jobs != "auto":
            return int(self.config.jobs)
        if self.device.type != "cpu":
            return 1
        return max(1, cores() // (self.config.threads or cores()))

    @cached_property
    def data(self) -> ImageData:
        """The images. Both augmentations are checked against their size.

        Raises:
            UserError: they cannot be read, or are too small for an augmentation.
        """
        sized, config = "", self.config
        if (size := getattr(self.source, "size", None)) is not None:  # images of that many pixels
            sized = "data.source.size or "
            batch = max(config.search.batch_size, config.retrain.batch_size)
            what = f"data.source.size={size}: a batch of {batch} images"
            require_room(what, 4 * 3 * size**2 * batch, self.device, "one, or a smaller batch size")
        with enough_memory("data", f"{sized}set of images"):
            data, side = self.source.load(), self.config.data.image_size
            data = data if side is None else data.averaged(side)
            self.augment.check(data.size, "data.augment")
            if self.given is None or self.init == "inherit":
                self.search_augment.check(data.size, "data.search_augment")
            if self.own_task is not None:
                data = dataclasses.replace(data, own_task=self.own_task.of(data.task))
            if not len(data.mean):
                self.require_text()
            elif getattr(data.train, "targets", None) is not None:
                self.require_still_images()
            return data.to(self.device)

    def require_text(self) -> None:
        """Raises a UserError if something is chosen that needs images, for a text."""
        if self.config.judge.by == "vote":
            raise UserError("judge.by=vote: it scores networks of images, but the data are a text")
        for name in ("augment", "search_augment"):
            used = [key for key, value in vars(getattr(self, name)).items() if value]
            if used:
                raise UserError(
                    f"data.{name}.{used[0]}: changes images, but the data are a text; leave it out"
                )

    def require_still_images(self) -> None:
        """Raises a UserError if an augmentation would move images away from their targets."""
        for name in ("augment", "search_augment"):
            if getattr(self, name).crop_padding or getattr(self, name).flip:
                raise UserError(
                    f"data.{name}: moves images, but not the targets of their pixels; set "
                    f"data.{name}.crop_padding=0 data.{name}.flip=false"
                )

    @cached_property
    def contents(self) -> Contents:
        """What the data set, and each file that a setting names, holds: the name of the setting ->
        its value and a checksum.

        Raises:
            UserError: the data set or a file cannot be read.
        """
        settings = self.settings | self.result_settings
        files = {
            name: {"setting": path, "content": content_of(path)}
            for name, path in paths(settings)
            if not name.startswith(f"{SOURCE}.")
            and isinstance(path, str)
            and file_of(path).is_file()
        }
        data = {"setting": settings["data"]["source"], "content": self.data.fingerprint}
        return {SOURCE: data | {"classes": list(self.data.class_names)}} | files

    @cached_property
    def splits(self) -> Splits:
        """The training images for the weights of a supernet, and those for its architecture."""
        settings = self.config.data
        return split(
            self.data.train.labels,
            1 - settings.architecture_share,
            Streams(self.config.seed).host("split"),
            limit=settings.train_limit,
            names=self.data.class_names,
            setting=f"data.architecture_share={settings.architecture_share}",
        )

    @cached_property
    def images(self) -> torch.Tensor:
        """The training images of both splits, in order. A final network is trained on these."""
        return torch.cat([self.splits.weights, self.splits.architecture]).sort().values

    @property
    def task(self) -> Task:
        """The task: what is learnt."""
        return self.data.task

    @property
    def init(self) -> str:
        """Where the weights of the derived network start from: "scratch", "inherit" (the weights of
        the supernet), or "warm" (the weights of another run).
        """
        return "warm" if self.config.retrain.warm_start is not None else self.config.retrain.init

    @property
    def result_settings(self) -> dict[str, Any]:
        """All settings that a result may depend on."""
        chosen = {k: v for k, v in self.settings.items() if k not in CHANGE_NOTHING}
        search = {k: v for k, v in chosen["search"].items() if k != "recompute"}
        if self.given is not None:  # the same architecture, however it is written
            chosen["architecture"] = self.given.to_dict()
        watched = {"watched": self.settings["measure"]["images"]} if self.guards else {}
        if self.config.budget.measures and self.config.budget.latency_table is None:
            measured = {name: self.settings[name] for name in ("device", "threads")}
            chosen["budget"] = chosen["budget"] | measured
        return chosen | {"search": search} | watched

    def of(self, *sections: str) -> dict[str, Any]:
        """These sections of the settings, as inputs of a job. A file is known by its content: the
        checksum stands where the settings have the path.
        """
        return {section: self.by_content[section] for section in sections}

    @cached_property
    def by_content(self) -> dict[str, Any]:
        """The settings that a result may depend on, with checksums in the place of paths."""
        settings = self.result_settings
        for name, _ in paths(settings):
            if name.startswith(f"{SOURCE}."):
                settings = with_setting(settings, name, None)
        for name, known in self.contents.items():
            if name == SOURCE:
                settings = with_setting(settings, f"{SOURCE}.content", known["content"])
            elif name.partition(".")[0] in settings:
                settings = with_setting(settings, name, known["content"])
        return settings


def chosen(kind: str, node: Any, name: str) -> Any:
    """The node of a modifier, guard or instrument.

    Raises:
        UserError: it has only settings, because the part is not chosen.
    """
    if isinstance(node, Mapping) and "_target_" not in node:
        raise UserError(
            f"{kind}.{name}: settings of a {kind} that is not chosen; add it, {kind}=[...,{name}], "
            f"or drop them, ~{kind}.{name}"
        )
    return node


def option(part: Any) -> str:
    """The name by which a sampler, learner or searcher is chosen. It is the name of its module, and
    of its YAML file.
    """
    return type(part).__module__.rpartition(".")[2]
