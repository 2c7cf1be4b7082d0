"""Settings: for every wrong one, the message names it."""

import re

import pytest

from supernet.cli.composition import composed
from supernet.config import Config, build, typed, with_named_phases
from supernet.errors import UserError, unknown
from supernet.samplers.schedule import Schedule
from supernet.samplers.uniform import Uniform
from supernet.spaces.cells import Geometry
from supernet.spaces.nb201 import NB201

SIZE = {"channels": 4, "cells": 1}
SPACE = {"_target_": "supernet.spaces.nb201.NB201", "search": SIZE, "evaluation": SIZE}
SAMPLER = {"_target_": "supernet.samplers.uniform.Uniform"}
LEARNER = {"_target_": "supernet.learners.gradient.Gradient"}
WHOLE = {
    "name": "n",
    "method": "spos",
    "space": SPACE,
    "sampler": SAMPLER,
    "learner": LEARNER,
    "searcher": {},
    "tracker": {},
    "data": {"name": "d", "source": {}, "augment": {}, "search_augment": {}},
}


def test_a_part_is_built_from_its_settings_and_numbers_may_be_text():
    assert build(SPACE, "space") == NB201(Geometry(4, 1), Geometry(4, 1))
    learner = build(LEARNER | {"lr": "1e-3", "order": "second"}, "learner")
    assert (learner.lr, learner.order, learner.beta1) == (1e-3, "second", 0.5)


SCHEDULE = {"_target_": "supernet.samplers.schedule.Schedule"}


def test_a_part_is_built_with_the_parts_in_its_settings_however_deep():
    node = SCHEDULE | {"phases": [[SAMPLER | {"paths": "2"}, 0.25], [SCHEDULE, 0.75]]}
    schedule = build(node, "sampler")
    assert [share for _, share in schedule.phases] == [0.25, 0.75]
    assert schedule.samplers[0] == Uniform(paths=2) and schedule.samplers[1] == Schedule()


@pytest.mark.parametrize(
    ("phase", "message"),
    [
        (SAMPLER | {"pahts": 2}, "sampler.phases[1][0].pahts: unknown 'pahts'; did you mean"),
        (SAMPLER | {"paths": "two"}, "sampler.phases[1][0].paths: Value 'two' of type 'str'"),
        (
            {"_target_": SPACE["_target_"], "search": SIZE},
            "sampler.phases[1][0].evaluation: .*missing mandatory value",
        ),
        ({"_target_": "nowhere.At"}, "sampler.phases[1][0]._target_=nowhere.At: no such dataclass"),
        (
            SCHEDULE | {"phases": [[SAMPLER | {"pahts": 2}, 1.0]]},
            "sampler.phases[1][0].phases[0][0].pahts: unknown 'pahts'",
        ),
        ("uniform", "sampler.phases: ['uniform', 0.5]: a phase is a pair of a sampler and"),
    ],
)
def test_what_is_wrong_in_an_inner_part_is_one_line_with_its_full_key(phase, message):
    with pytest.raises(UserError, match=wanted(message)) as caught:
        build(SCHEDULE | {"phases": [[SAMPLER, 0.5], [phase, 0.5]]}, "sampler")
    assert "\n" not in str(caught.value)


def test_phases_that_are_given_by_name_become_nodes_and_all_else_stays():
    asked = []

    def option(name):
        asked.append(name)
        return {"_target_": name}

    given = {"phases": [["a", 0.5], [{"_target_": "b"}, 0.25], "c", ["d"]], "mixed": True}
    assert with_named_phases(given, option) == {
        "phases": [[{"_target_": "a"}, 0.5], [{"_target_": "b"}, 0.25], "c", [{"_target_": "d"}]],
        "mixed": True,
    }
    assert asked == ["a", "d"] and given["phases"][0] == ["a", 0.5]
    for other in ({"phases": [0.25, 0.5]}, {"paths": 2}, None, "uniform"):
        assert with_named_phases(other, option) == other


def test_a_whole_configuration_is_typed_to_its_last_leaf():
    config = typed(Config, WHOLE | {"search": {"epochs": 3}, "retrain": {"lr": "0.5"}}, "")
    assert (
        config.search.epochs,
        config.search.lr_min,
        config.retrain.lr,
        config.retrain.seeds,
    ) == (3, 0.001, 0.5, 3)
    assert config.data.name == "d" and config.data.architecture_share == 0.5


@pytest.mark.parametrize(
    ("node", "message"),
    [
        (
            SPACE | {"serch": SIZE},
            "part.serch: unknown 'serch'; did you mean 'search'? choose one of search, evaluation",
        ),
        (
            SPACE | {"search": {"chanels": 4, "cells": 1}},
            "part.search.chanels: unknown 'chanels'; did you mean 'channels'?",
        ),
        (
            SPACE | {"search": {"channels": "four", "cells": 1}},
            "part.search.channels: Value 'four' of type 'str'",
        ),
        (
            SPACE | {"search": {"channels": 3, "cells": 1}},
            "space.search.channels=3: must be even and at least 2",
        ),
        (
            SPACE | {"evaluation": {"channels": 4, "cells": 0}},
            "space.evaluation.cells=0: must be at least 1",
        ),
        (SPACE | {"search": {"cells": 1}}, "part.search.channels: .* missing mandatory value"),
        (SPACE | {"search": "???"}, "part.search: .* missing mandatory value"),
        (
            SPACE | {"search": 3},
            "part.search=3: expected settings of its own (channels, cells, partial_channels)",
        ),
        (SPACE | {"search": None}, "part.search=None: expected settings of its own"),
        (
            SPACE | {"_target_": "supernet.spaces.nb201.NB202"},
            "part._target_=supernet.spaces.nb201.NB202: no such dataclass",
        ),
        (
            SPACE | {"_target_": "supernet.spaces.nb2001.NB201"},
            "part._target_=supernet.spaces.nb2001.NB201: no such dataclass",
        ),
        ({"_target_": "NB201"}, "part._target_=NB201: no such dataclass"),
        ({"_target_": "os.path.join"}, "part._target_=os.path.join: no such dataclass"),
        ({"_target_": "torch.nn.Linear"}, "part._target_=torch.nn.Linear: no such dataclass"),
        ({}, "part._target_=None: no such dataclass"),
        ("nb201", "part=nb201: expected a node with a _target_"),
        (None, "part=None: expected a node with a _target_"),
        (SAMPLER | {"paths": 1.5}, "part.paths: Value '1.5' of type 'float'"),
        (SAMPLER | {"paths": None}, "part.paths: Incompatible value 'None'"),
        (SAMPLER | {"paths": 0}, "sampler.paths=0: must be at least 1"),
        (
            {"_target_": "supernet.searchers.random.Random", "candidates": -1},
            "searcher.candidates=-1: must be at least 1",
        ),
        (LEARNER | {"order": "third"}, "learner.order='third': choose one of first, second"),
        (LEARNER | {"lr": 0}, "learner.lr=0.0: must be greater than 0"),
        (LEARNER | {"beta1": 1}, "learner.beta1=1.0: must be at least 0 and below 1"),
        (LEARNER | {"weight_decay": "nan"}, "learner.weight_decay=nan: must be at least 0"),
    ],
)
def test_a_wrong_part_is_one_line_that_names_the_setting(node, message):
    with pytest.raises(UserError, match=wanted(message)) as caught:
        build(node, "part")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sed": 1}, "sed: unknown 'sed'; did you mean 'seed'?"),
        ({"search": {"epoch": 3}}, "search.epoch: unknown 'epoch'; did you mean 'epochs'?"),
        (
            {"data": {"train_limt": 3}},
            "data.train_limt: unknown 'train_limt'; did you mean 'train_limit'?",
        ),
        ({"search": 3}, "search=3: expected settings of its own"),
        ({"retrain": {"lr": "fast"}}, "retrain.lr: Value 'fast' of type 'str'"),
        ({"study": {"seeds": [1, "a"]}}, "study.seeds[1]: Value 'a'"),
        ({"name": "???"}, "name: .* missing mandatory value"),
        ({"seed": -1}, "seed=-1: must be at least 0"),
        ({"threads": 0}, "threads=0: must be at least 1"),
        ({"precision": "bf61"}, "precision: unknown 'bf61'; did you mean 'bf16'?"),
        (
            {"checkpoint": {"every_seconds": "inf"}},
            "checkpoint.every_seconds=inf: must be at least 0",
        ),
        ({"judge": {"batch_size": 0}}, "judge.batch_size=0: must be at least 1"),
        (
            {"judge": {"recalibration_batches": -1}},
            "judge.recalibration_batches=-1: must be at least 0",
        ),
        (
            {"judge": {"cost": "flops"}},
            "judge.cost: unknown 'flops'; choose one of params, madds, latency_ms",
        ),
        (
            {"judge": {"cost": "latency_ms"}},
            "judge.cost=latency_ms: there is no latency table; set budget.latency_ms",
        ),
        ({"baseline": {"architectures": -1}}, "baseline.architectures=-1: must be at least 0"),
        (
            {"data": {"architecture_share": 1}},
            "data.architecture_share=1.0: must be greater than 0 and below 1",
        ),
        ({"search": {"epochs": 0}}, "search.epochs=0: must be at least 1"),
        ({"search": {"batch_size": 0}}, "search.batch_size=0: must be at least 2"),
        ({"search": {"lr": "nan"}}, "search.lr=nan: must be greater than 0"),
        ({"search": {"lr": 1e-4}}, "search.lr_min=0.001: must be at most search.lr=0.0001"),
        ({"search": {"momentum": 1}}, "search.momentum=1.0: must be at least 0 and below 1"),
        ({"search": {"clip": -1}}, "search.clip=-1.0: must be at least 0"),
        ({"search": {"weight_decay": -1}}, "search.weight_decay=-1.0: must be at least 0"),
        ({"search": {"warmup_epochs": -1}}, "search.warmup_epochs=-1.0: must be at least 0"),
        (
            {"retrain": {"label_smoothing": 1}},
            "retrain.label_smoothing=1.0: must be at least 0 and below 1",
        ),
        ({"retrain": {"drop_path": 1}}, "retrain.drop_path=1.0: must be at least 0 and below 1"),
        (
            {"retrain": {"auxiliary_weight": -1}},
            "retrain.auxiliary_weight=-1.0: must be at least 0",
        ),
        ({"retrain": {"ema_decay": 1}}, "retrain.ema_decay=1.0: must be at least 0 and below 1"),
        ({"retrain": {"seeds": 0}}, "retrain.seeds=0: must be at least 1"),
        ({"retrain": {"init": "inherited"}}, "retrain.init='inherited': choose scratch or inherit"),
    ],
)
def test_a_wrong_setting_is_one_line_that_names_it(change, message):
    settings = WHOLE | {
        key: WHOLE[key] | value if key == "data" else value for key, value in change.items()
    }
    with pytest.raises(UserError, match=wanted(message)) as caught:
        typed(Config, settings, "")
    assert "\n" not in str(caught.value)


def wanted(message: str) -> str:
    """The message as a regular expression, anchored at its start. Only ``.*`` is not literal."""
    return "^" + ".*".join(re.escape(part) for part in message.split(".*"))


def test_a_name_that_resembles_none_gets_no_guess():
    assert unknown("zzz", ["seed", "data"]) == "unknown 'zzz'; choose one of seed, data"


def test_a_modifier_that_the_line_replaces_takes_the_settings_of_the_recipe_with_it():
    assert list(composed([]).modifier) == ["beta_decay"]
    assert list(composed(["modifier=[auxiliary_skip]"]).modifier) == ["auxiliary_skip"]
    assert composed(["method=drnas", "modifier=[]"]).modifier == {}
    said = composed(["method=drnas", "modifier=[]", "modifier.pruning.stages=[[0.5,3]]"])
    assert list(said.modifier) == ["pruning"]  # and refused later, in one line
