"""The command line as a new user sees it: the help, and one line for every mistake, before anything
is written.
"""

import os
import sys

import numpy as np
import pytest
import yaml

from supernet.cli.launch import launch
from supernet.cli.line import parse
from supernet.cli.messages import COMMANDS
from tests.commands import ROOT, process, supernet, waited

MISTAKES = {
    "wrong key": (["sead=1"], ["sead", "did you mean seed?"]),
    "wrong key deeper": (["search.epohcs=1"], ["search.epohcs", "did you mean search.epochs?"]),
    "wrong key of a part": (
        ["sampler=uniform", "sampler.pahts=2"],
        ["sampler.pahts", "did you mean sampler.paths?"],
    ),
    "wrong key added": (["+foo=1"], ["foo", "choose one of", "seed"]),
    "wrong group": (["spice=darts"], ["spice", "did you mean space?"]),
    "wrong option": (["space=dart"], ["space", "'dart'", "did you mean 'darts'"]),
    "wrong option and a flag": (
        ["--cfg", "job", "space=dart"],
        ["space", "'dart'", "did you mean 'darts'"],
    ),
    "no option": (["space=null"], ["space=null", "choose one of darts, gpt"]),
    "no experiment": (["experiment=null"], ["experiment=null", "leave it out", "default_method"]),
    "group deleted": (["~method"], ["~method", "darts, darts_2nd", "spos"]),
    "wrong value": (["learner.order=thrid"], ["learner.order", "thrid", "second"]),
    "value out of range": (["search.epochs=-1"], ["search.epochs=-1"]),
    "batch of one": (["search.batch_size=1"], ["search.batch_size=1", "at least 2"]),
    "wrong mode of memory": (["memory=fti"], ["memory", "did you mean 'fit'?", "refuse"]),
    "number as an option": (["space=3"], ["space=3", "choose one of darts, gpt"]),
    "value of the wrong type": (["search.epochs=abc"], ["search.epochs", "'abc'", "Integer"]),
    "unclosed list": (["study.seeds=[1"], ["study.seeds", "list"]),
    "several values": (["method=darts,spos"], ["method=darts,spos", "-m"]),
    "wrong value in a sweep": (
        ["-m", "seed=0,1", "space=darts,dart"],
        ["space", "did you mean 'darts'"],
    ),
    "wrong method in a study": (
        ["study", "study.methods=[darts,sops]"],
        ["method", "did you mean 'spos'"],
    ),
    "nothing to study": (["study", "study.seeds=[]"], ["study.seeds"]),
    "study of one architecture": (
        ["study", "architecture=|none~0|+|none~0|none~1|+|none~0|none~1|none~2|"],
        ["architecture="],
    ),
    "wrong command": (["serach"], ["command", "'serach'", "did you mean 'search'"]),
    "two commands": (["search", "derive"], ["search derive"]),
    "wrong flag": (["--multrun"], ["--multrun"]),
    "wrong value of a flag": (["--cfg", "jobs"], ["jobs", "job"]),
    "no key": (["=1"], ["=1", "KEY=VALUE"]),
    "not a run": (["from=."], ["from=", "not the folder of a run", "state.json"]),
    "no run": (["export"], ["export", "from=RUN_DIR"]),
    "no class": (
        ["sampler._target_=supernet.samplers.Nope"],
        ["sampler._target_", "supernet.samplers.Nope"],
    ),
    "no device": (["device=xpu"], ["device=xpu", "cpu", "device=auto"]),
    "logits that nobody learns": (
        ["learner=fixed"],
        ["searcher=logits", "learner=fixed", "searcher=random"],
    ),
    "unknown sampler in a schedule": (
        ["sampler=[[unifrom,0.5],[softmax,0.5]]"],
        ["sampler.phases", "did you mean 'uniform'?"],
    ),
    "shares that are not all": (
        ["sampler=[[uniform,0.5],[softmax,0.4]]"],
        ["sampler.phases", "[0.5, 0.4]", "add up to 1"],
    ),
    "no share": (["sampler=[uniform,softmax]"], ["sampler.phases", "uniform", "a pair"]),
    "policy that nobody learns": (
        ["sampler=policy"],
        ["sampler=policy", "learner=gradient", "the policy never moves"],
    ),
    "unknown modifier": (
        ["modifier=[auxiliary_skp]"],
        ["modifier", "did you mean 'auxiliary_skip'?"],
    ),
    "unknown instrument": (
        ["instrument=[shares,eigenvalu]"],
        ["instrument", "did you mean 'eigenvalue'?"],
    ),
    "settings of no instrument": (
        ["instrument=[shares]", "+instrument.gap.images=3"],
        ["instrument.gap", "add it, instrument=[...,gap]"],
    ),
    "policy in a schedule": (
        ["sampler=[[policy,0.5],[softmax,0.5]]"],
        ["sampler.phases", "policy", "choose sampler=policy alone"],
    ),
    "setting of an inner sampler": (
        [
            "sampler=schedule",
            "sampler.phases=[[{_target_:supernet.samplers.uniform.Uniform,pahts:2},1]]",
        ],
        ["sampler.phases[0][0].pahts", "did you mean 'paths'?"],
    ),
    "guards of a supernet that begins anew": (
        ["method=pdarts", "guard=[oles]"],
        ["guard=[oles]", "search.depths=[]"],
    ),
    "several supernets with a policy": (
        ["method=enas", "search.supernets=2"],
        ["search.supernets=2", "this learner learns a policy", "set search.supernets=1"],
    ),
    "settings of no modifier": (
        ["modifier.pruning.stages=[[0.5,3]]"],
        ["modifier.pruning", "add modifier=[pruning]"],
    ),
    "nothing to guard": (
        ["guard=[early_stop]", "method=spos"],
        ["guard=[early_stop]", "learner=fixed"],
    ),
    "a shortlist longer than the search": (
        ["shortlist.size=5"],
        ["shortlist.size=5", "searcher=logits"],
    ),
    "more to train than to rank": (
        ["rank", "rank.scratch=300"],
        ["rank.scratch=300", "rank.architectures=200"],
    ),
    "latency without a table": (
        ["judge.cost=latency_ms"],
        ["judge.cost=latency_ms", "budget.latency_table"],
    ),
    "missing value": (["data=npz"], ["data.source.path"]),
    "not an architecture": (["architecture=abc"], ["'abc'", "|op~0|+|op~0|op~1|"]),
    "unknown operation": (
        ["architecture=|none~0|+|none~0|none~1|+|none~0|none~1|skip_conect~2|"],
        ["edges[5]", "did you mean 'skip_connect'"],
    ),
    "architecture of another space": (
        ["space=darts", "architecture=|none~0|"],
        ["|none~0|", "Genotype("],
    ),
    "no architecture file": (
        ["architecture=nowhere/architecture.json"],
        ["no such file", "nowhere"],
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line_and_leaves_no_trace(mistake, tmp_path):
    arguments, words = MISTAKES[mistake]
    outcome = supernet(*arguments, cwd=tmp_path)
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err.startswith("supernet: ")
    assert outcome.err.count("\n") == 1
    for word in words:
        assert word in outcome.err
    assert list(tmp_path.iterdir()) == []


def images(count=40, size=8, classes=2, **changes):
    arrays = {}
    for part in ("train", "test"):
        arrays[f"x_{part}"] = np.zeros((count, size, size), np.uint8)
        arrays[f"y_{part}"] = np.arange(count) % classes
    return arrays | changes


DATA = {
    "no file": (None, ["npz", "no such file", "data.source.path"]),
    "damaged file": (b"PK\3\4 not really", ["set.npz", "damaged"]),
    "no images": (
        images(0, x_test=np.zeros((1, 8, 8), np.uint8), y_test=np.zeros(1, int)),
        ["set.npz", "no training images"],
    ),
    "wrong shape": (
        images(x_train=np.zeros((40, 64), np.uint8)),
        ["x_train", "[40, 64]", "[N, H, W]"],
    ),
    "wrong type": (
        images(x_train=np.zeros((40, 8, 8), np.float32)),
        ["x_train", "float32", "uint8"],
    ),
    "another shape in the test set": (
        images(x_test=np.zeros((40, 9, 9), np.uint8)),
        ["8×8", "9×9"],
    ),
    "label out of range": (images(y_test=np.full(40, 7)), ["test label 0", "7", "0 to 1"]),
    "no array": ({"x_train": np.zeros((4, 8, 8), np.uint8)}, ["y_train"]),
    "fewer images than classes": (
        images(3, classes=3),
        ["the class 0 has one image", "split", "data.architecture_share"],
    ),
    "channels first": (
        images(x_train=np.zeros((40, 13, 28, 28), np.uint8)),
        ["x_train", "[40, 13, 28, 28]", "data.source.channels_first"],
    ),
}


@pytest.mark.parametrize("mistake", DATA)
def test_wrong_data_is_one_line(mistake, tmp_path):
    content, words = DATA[mistake]
    path = tmp_path / "set.npz"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        np.savez(path, **content)
    outcome = supernet(
        "search", "size=tiny", "tracker=none", "data=npz", f"data.source.path={path}", cwd=tmp_path
    )
    assert outcome.code == 2
    assert outcome.err.startswith("supernet: ")
    assert outcome.err.count("\n") == 1
    for word in words:
        assert word in outcome.err


@pytest.mark.parametrize("space", ["nb201", "darts"])
@pytest.mark.parametrize("size", [1, 5])
def test_images_may_be_tiny_and_batches_small(space, size, tmp_path):
    np.savez(tmp_path / "set.npz", **images(8, size=size))
    overrides = [
        "data=npz",
        "data.source.path=set.npz",
        "data.augment.crop_padding=0",
        "data.search_augment.crop_padding=0",
    ]
    outcome = supernet(
        "check",
        f"space={space}",
        "size=tiny",
        "memory=ignore",
        "search.batch_size=2",
        *overrides,
        cwd=tmp_path,
    )
    assert (outcome.code, outcome.err) == (0, "")


def test_help_names_every_command_and_every_option(tmp_path):
    for flag in ("--help", "-h"):
        outcome = supernet(flag, cwd=tmp_path)
        assert (outcome.code, outcome.err) == (0, "")
        for command in COMMANDS:
            assert f"\n  {command} " in outcome.out
        for path in (ROOT / "conf").glob("*/*.yaml"):
            assert path.stem in outcome.out
            assert f"\n  {path.parent.name} " in outcome.out


def test_version_is_that_of_this_package(tmp_path):
    assert supernet("--version", cwd=tmp_path).out.startswith("supernet 0.")


def test_cfg_prints_the_settings_without_running_anything(tmp_path):
    outcome = supernet("--cfg", "job", "space=darts", "search.epochs=7", cwd=tmp_path)
    assert (outcome.code, outcome.err) == (0, "")
    assert "_target_: supernet.spaces.darts.Darts" in outcome.out
    assert "  epochs: 7\n" in outcome.out
    assert list(tmp_path.iterdir()) == []


def test_cfg_prints_what_hydra_prints(tmp_path, capsys):
    words = ["--cfg", "job", "method=drnas", "data=folder", "name=a"]
    launch(parse(words), lambda cfg: None)
    assert supernet(*words, cwd=tmp_path).out == capsys.readouterr().out != ""


def test_check_tries_everything_and_writes_nothing(tmp_path, monkeypatch):
    """What a trial of the memory measures is tested in ``tests/cost/test_memory.py``."""
    monkeypatch.setattr("supernet.cost.memory.tried", lambda *arguments: 2**28 + 2**21)
    # the command may stand anywhere
    words = ("method=spos", "check", "size=tiny", "memory=check")
    outcome = supernet(*words, cwd=tmp_path)
    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.out.rstrip().endswith("all is well")
    for word in (
        "images of shape (1, 8, 8)",
        "nb201",
        "weights",
        "memory: about",
        "the largest batch that fits is 719",
        "memory of retraining the largest network: about",
    ):
        assert word in outcome.out
    assert list(tmp_path.iterdir()) == []


def test_check_tries_no_memory_unless_asked(tmp_path, monkeypatch):
    """Each trial is a process, which takes longer to start than a tiny run."""
    monkeypatch.setattr("supernet.cost.memory.tried", lambda *arguments: pytest.fail("a trial"))
    outcome = supernet("check", "size=tiny", cwd=tmp_path)
    assert (outcome.code, outcome.err) == (0, "")
    assert "memory" not in outcome.out and outcome.out.rstrip().endswith("all is well")


def test_an_architecture_needs_no_quotes_for_hydra(tmp_path):
    genotype = (
        "[('skip_connect', 0), ('skip_connect', 1), ('skip_connect', 0), ('skip_connect', 1), "
    )
    genotype += (
        "('skip_connect', 0), ('skip_connect', 1), ('skip_connect', 0), ('skip_connect', 1)]"
    )
    text = (
        f"Genotype(normal={genotype}, normal_concat=range(2, 6), "
        f"reduce={genotype}, reduce_concat=range(2, 6))"
    )
    for space, architecture in (
        ("nb201", "|none~0|+|none~0|none~1|+|none~0|none~1|skip_connect~2|"),
        ("darts", text),
    ):
        outcome = supernet(
            "check",
            "size=tiny",
            "memory=ignore",
            f"space={space}",
            f"architecture={architecture}",
            cwd=tmp_path,
        )
        assert (outcome.code, outcome.err) == (0, "")


def test_a_list_of_samplers_is_a_schedule_of_them(tmp_path):
    outcome = supernet("--cfg", "job", "sampler=[[uniform,0.3],[softmax,0.7]]", cwd=tmp_path)
    long = supernet(
        "--cfg",
        "job",
        "sampler=schedule",
        "sampler.phases=[[uniform,0.3],[softmax,0.7]]",
        cwd=tmp_path,
    )
    assert (outcome.code, outcome.err) == (0, "") and outcome.out == long.out
    assert yaml.safe_load(outcome.out)["sampler"] == {
        "_target_": "supernet.samplers.schedule.Schedule",
        "phases": [["uniform", 0.3], ["softmax", 0.7]],
        "mixed": False,
    }
    schedule = ("sampler=[[uniform,0.3],[softmax,0.7]]", "sampler.mixed=true")
    outcome = supernet("check", "size=tiny", "memory=ignore", *schedule, cwd=tmp_path)
    assert (outcome.code, outcome.err) == (0, "")


def test_a_path_needs_no_quotes_for_hydra(tmp_path):
    folder = tmp_path / "my (first) data = 'good'"
    folder.mkdir()
    np.savez(folder / "set.npz", **images())
    outcome = supernet(
        "check",
        "size=tiny",
        "memory=ignore",
        "data=npz",
        f"data.source.path={folder}/set.npz",
        cwd=tmp_path,
    )
    assert (outcome.code, outcome.err) == (0, "")


def test_the_full_error_is_a_traceback_when_asked_for(tmp_path, monkeypatch):
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    with pytest.raises(ValueError, match="did you mean 'darts'"):
        supernet("space=dart", cwd=tmp_path)


def test_online_without_a_login_is_one_line(tmp_path, monkeypatch):
    environment = {"HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path), "WANDB_MODE": "online"}
    for name in [name for name in os.environ if name.startswith(("WANDB_", "NETRC"))]:
        monkeypatch.delenv(name)
    outcome = waited(
        process("search", "size=tiny", "tracker.mode=online", cwd=tmp_path, env=environment)
    )
    assert outcome.code == 2
    assert outcome.err.startswith("supernet: tracker.mode=online")
    assert outcome.err.count("\n") == 1


@pytest.mark.skipif(
    os.geteuid() == 0 or sys.platform == "win32", reason="root may write everywhere"
)
def test_a_folder_without_write_permission_is_one_line(tmp_path):
    tmp_path.chmod(0o555)
    outcome = supernet("search", cwd=tmp_path)
    tmp_path.chmod(0o755)
    assert outcome.code == 2
    assert outcome.err.startswith("supernet: ")
    assert outcome.err.count("\n") == 1
    assert "outputs" in outcome.err


def test_a_file_where_the_folder_should_be_is_one_line(tmp_path):
    (tmp_path / "outputs").write_text("precious")
    outcome = supernet("search", cwd=tmp_path)
    assert outcome.code == 2
    assert outcome.err.count("\n") == 1
    for word in ("cannot make", str(tmp_path / "outputs"), "hydra.run.dir"):
        assert word in outcome.err
    assert (tmp_path / "outputs").read_text() == "precious"
