"""From overrides to a checked configuration, by Hydra."""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from supernet.cli.line import key, owner_of_target
from supernet.cli.messages import explained
from supernet.cli.options import Folders, conf_dir
from supernet.config import Config, typed, with_named_phases
from supernet.errors import UserError, unknown
from supernet.runs.setup import SEVERAL


def register() -> None:
    """Tells Hydra the types and defaults of all settings."""
    ConfigStore.instance().store("schema", Config)


@contextlib.contextmanager
def composition(overrides: Sequence[str], folders: Folders | None = None) -> Iterator[DictConfig]:
    """What Hydra makes of these overrides, with its own node, as long as what that refers to can be
    resolved.

    It may be used inside a running job, of which Hydra knows again afterwards.

    Raises:
        UserError: a key, a value or a name is wrong.
    """
    folders = folders or Folders()
    application, job = GlobalHydra.instance(), HydraConfig.instance()
    running = application.hydra, job.cfg
    application.clear()
    register()
    try:
        with initialize_config_dir(str(conf_dir()), version_base="1.3"):
            words = [*folders.override(), *overrides]
            cfg = compose("config", words, return_hydra_config=True)
        job.set_config(cfg)
        yield cfg
    except (HydraException, OmegaConfBaseException) as error:
        known = lambda: known_keys(overrides, folders)  # noqa: E731
        raise UserError(explained(error, folders, known)) from error
    finally:
        application.hydra, job.cfg = running


def composed(overrides: Sequence[str], folders: Folders | None = None) -> Config:
    """The configuration of these overrides, checked."""
    with composition(overrides, folders) as cfg:
        return to_config(cfg, folders)


def to_config(cfg: DictConfig, folders: Folders | None = None) -> Config:
    """The typed configuration; Hydra's own node is left out."""
    folders = folders or Folders()
    tree = OmegaConf.to_container(settings(cfg), resolve=True, throw_on_missing=True)
    tree["sampler"] = with_named_phases(tree["sampler"], lambda name: phase(name, folders))
    return typed(Config, tree, "")


def phase(name: str, folders: Folders) -> Any:
    """The node of the sampler of that name, as the phase of a schedule.

    Raises:
        UserError: there is none.
    """
    if name not in folders.options("sampler"):
        raise UserError(f"sampler.phases: {unknown(name, folders.options('sampler'))}")
    return OmegaConf.to_container(OmegaConf.load(folders.file("sampler", name)))


def settings(cfg: DictConfig) -> DictConfig:
    """The settings without Hydra's own node, and without what was said of parts that are gone.

    A recipe may have settings of modifiers that the line replaced by others. A class of one's own
    (``space._target_=my.Space``) has no settings but those of the line.
    """
    own = OmegaConf.masked_copy(cfg, [str(name) for name in cfg if name != "hydra"])
    line = list(HydraConfig.get().overrides.task)
    for group in SEVERAL:
        unchosen = [name for name, node in own[group].items() if "_target_" not in (node or {})]
        for name in unchosen:
            if not any(f"{key(o)}.".startswith(f"{group}.{name}.") for o in line):
                del own[group][name]
    for node in filter(None, map(owner_of_target, line)):
        keep_typed(own, node, line)
    return own


def keep_typed(cfg: DictConfig, node: str, line: Sequence[str]) -> None:
    """Leaves in a node what the line says of it, and no more."""
    said = [key(o).removeprefix(f"{node}.") for o in line if key(o).startswith(f"{node}.")]
    kept: DictConfig = OmegaConf.create({})
    for name in said:
        OmegaConf.update(kept, name, OmegaConf.select(cfg, f"{node}.{name}"))
    OmegaConf.update(cfg, node, kept, merge=False)


def known_keys(overrides: Sequence[str], folders: Folders) -> list[str]:
    """Every key and group of the configuration that has these overrides' options."""
    groups = folders.groups()
    with composition([o for o in overrides if key(o) in groups], folders) as cfg:
        tree = OmegaConf.to_container(settings(cfg), resolve=False)

    def flat(node: Any, prefix: str) -> Iterator[str]:
        for name, value in node.items() if isinstance(node, dict) else ():
            yield f"{prefix}{name}"
            yield from flat(value, f"{prefix}{name}.")

    return [*flat(tree, ""), *groups]
