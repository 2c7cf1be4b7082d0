"""Relative paths become absolute where the command line is read. Every setting that is a path is
found from the dataclasses of the configuration.
"""

import contextlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import yaml

from supernet.cli.composition import composed, composition, with_paths_made_absolute
from supernet.cli.line import parse
from supernet.config import paths
from supernet.data import Npz
from supernet.errors import UserError
from tests.commands import finished, supernet

FIRST = {"data.source.path": "data=npz", "data.source.root": "data=folder"}  # it has this setting
SETTINGS = (
    *FIRST,
    "study.published",
    "rank.published",
    "budget.latency_table",
    "retrain.warm_start",
    "architecture",
)
TYPED = {
    "a name": "x.json",
    "in a folder": "some/x.json",
    "with a dot": "./x.json",
    "beside": "../other/x.json",
    "with a space": "my files/x.json",
    "with a bracket": "x[1].json",
    "with a comma": "a,b.json",
    "with an equals sign": "a=b.json",
    "with a quote": "it's.json",
    "with an umlaut": "Größe/x.json",
}


def recorded(*words):
    """The overrides that a run of this command line records, and its configuration."""
    line = parse(list(words))
    with composition(line.overrides, line.folders) as cfg:
        overrides = with_paths_made_absolute(cfg, line.overrides)
    return overrides, composed(overrides, line.folders)


def value_of(config, setting):
    found = config
    for name in setting.split("."):
        found = found[name] if isinstance(found, dict) else getattr(found, name)
    return found


MEMBERS = [
    *(("data.source.path", member) for member in TYPED),
    *((setting, "a name") for setting in SETTINGS),
]


@pytest.mark.parametrize(("setting", "member"), MEMBERS)
def test_a_relative_path_is_recorded_in_absolute_form(setting, member, tmp_path, monkeypatch):
    text, first = TYPED[member], FIRST.get(setting, "seed=0")
    monkeypatch.chdir(tmp_path)
    shown = f"'{text}'" if "," in text else text  # a comma separates the values of a sweep
    overrides, config = recorded(first, f"{setting}={shown}")
    assert value_of(config, setting) == str(tmp_path / text)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert value_of(composed(overrides), setting) == str(tmp_path / text)


@pytest.mark.parametrize("text", ["/absolute/x.npz", "~/x.npz"])
def test_a_path_that_begins_at_the_top_or_at_home_is_recorded_as_it_is(text, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", "/somewhere")
    typed = ["data=npz", f"data.source.path={text}"]
    overrides, config = recorded(*typed)
    assert overrides == parse(typed).overrides
    assert config.data.source["path"] == text.replace("~", "/somewhere")


def test_lists_of_paths_and_paths_in_the_users_own_yaml_become_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    overrides, config = recorded("rank.beside=[one,/two,../three]")
    assert config.rank.beside == [f"{tmp_path}/one", "/two", f"{tmp_path}/../three"]
    assert composed(overrides).rank.beside == config.rank.beside
    (tmp_path / "own" / "data").mkdir(parents=True)
    text = (Path(__file__).parents[1] / "conf" / "data" / "npz.yaml").read_text()
    (tmp_path / "own" / "data" / "mine.yaml").write_text(text.replace("???", "mine/x.npz"))
    overrides, config = recorded("--config-dir", "own", "data=mine")
    assert config.data.source["path"] == f"{tmp_path}/mine/x.npz"
    assert f"data.source.path='{tmp_path}/mine/x.npz'" in overrides


@dataclass(frozen=True)
class Typed(Npz):
    """A source of a user, whose path has the type ``Path``."""

    path: Path
    notes: Path | None = None
    label: str = "x.npz"


def test_a_class_of_the_users_own_has_paths_by_their_type(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    overrides, config = recorded(
        "data=npz",
        "data.source._target_=tests.test_paths.Typed",
        "data.source.path=x.npz",
        "data.source.notes=n/notes.txt",
        "data.source.label=y.npz",
    )
    found = {"path": f"{tmp_path}/x.npz", "notes": f"{tmp_path}/n/notes.txt", "label": "y.npz"}
    assert {k: v for k, v in config.data.source.items() if k != "_target_"} == found
    assert composed(overrides).data.source == config.data.source


@pytest.mark.parametrize(
    ("text", "words"), [("~nosuchuser/x.npz", "no such user"), ("' '", "is empty")]
)
def test_what_is_no_path_is_one_line(text, words):
    with pytest.raises(UserError, match=f"^data.source.path=.*{words}") as caught:
        recorded("data=npz", f"data.source.path={text}")
    assert "\n" not in str(caught.value)


def test_a_changed_working_folder_is_refused_before_anything_is_written(tmp_path):
    for command in ("search", "check"):
        outcome = supernet(command, "hydra.job.chdir=true", "size=tiny", cwd=tmp_path)
        assert outcome.code == 2 and outcome.err.count("\n") == 1
        assert "hydra.job.chdir=true" in outcome.err and list(tmp_path.iterdir()) == []


def test_no_setting_of_the_package_that_is_a_path_lacks_its_mark():
    """The names of settings that are paths say so; each of them is found."""
    for group in (Path(__file__).parents[1] / "conf" / "data").glob("*.yaml"):
        source = yaml.safe_load(group.read_text())["source"]
        given = {"data": {"source": source | dict.fromkeys({"path", "root"} & set(source), "x")}}
        assert {name for name, _ in paths(given)} == {
            f"data.source.{name}" for name in ("path", "root") if name in source
        }


def test_the_jobs_of_a_sweep_record_absolute_paths_and_go_on_from_elsewhere(tmp_path):
    random = np.random.default_rng(0)
    for name in ("a.npz", "b.npz"):
        images = random.integers(0, 256, (8, 8, 8), np.uint8)
        labels = np.arange(8) % 2
        np.savez(tmp_path / name, x_train=images, y_train=labels, x_test=images, y_test=labels)
    line = ["size=tiny", "tracker=none", "search.epochs=1", "search.supernets=1", "data=npz"]
    outcome = supernet("search", "-m", *line, "data.source.path=a.npz,b.npz", cwd=tmp_path)
    assert (outcome.code, outcome.err) == (0, "")
    (tmp_path / "elsewhere").mkdir()
    for name in ("a.npz", "b.npz"):
        (folder,) = (
            path.parents[1]
            for path in tmp_path.glob("multirun/*/*/*/.hydra/overrides.yaml")
            if f"data.source.path='{tmp_path}/{name}'" in yaml.safe_load(path.read_text())
        )
        assert finished("search", f"from={folder}", cwd=tmp_path / "elsewhere") == folder
    with contextlib.chdir(tmp_path):
        assert composed(["data=npz", "data.source.path=a.npz"]).data.source["path"] == str(
            tmp_path / "a.npz"
        )
