"""Composes a checked configuration from overrides, with Hydra."""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any, cast

from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from supernet.cli.line import key, owner_of_target, quoted
from supernet.cli.messages import explained
from supernet.cli.options import Folders, conf_dir
from supernet.config import Config, paths, typed, with_absolute_paths, with_named_phases
from supernet.errors import UserError, unknown
from supernet.runs.setup import SEVERAL


def register() -> None:
    """Registers the types and defaults of all settings with Hydra."""
    ConfigStore.instance().store("schema", Config)


@contextlib.contextmanager
def composition(overrides: Sequence[str], folders: Folders | None = None) -> Iterator[DictConfig]:
    """The configuration that Hydra composes from these overrides, together with Hydra's own node.
    Inside the block, its references can be resolved.

    It may be used while Hydra runs a job. Hydra's state is restored afterwards.

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
        if cfg.hydra.job.chdir:
            raise UserError(
                "hydra.job.chdir=true: a run reads relative paths in the folder where it is "
                "started; leave it out"
            )
        yield cfg
    except (HydraException, OmegaConfBaseException) as error:
        known = lambda: known_keys(overrides, folders)  # noqa: E731
        raise UserError(explained(error, folders, known)) from error
    finally:
        application.hydra, job.cfg = running


def composed(overrides: Sequence[str], folders: Folders | None = None) -> Config:
    """The configuration that these overrides give, checked."""
    with composition(overrides, folders) as cfg:
        return to_config(cfg, folders)


def to_config(cfg: DictConfig, folders: Folders | None = None) -> Config:
    """The typed configuration, without Hydra's own node."""
    folders = folders or Folders()
    tree = cast(
        dict[str, Any],
        OmegaConf.to_container(settings(cfg), resolve=True, throw_on_missing=True),
    )
    tree["sampler"] = with_named_phases(tree["sampler"], lambda name: phase(name, folders))
    return typed(Config, with_absolute_paths(tree), "")


def with_paths_made_absolute(cfg: DictConfig, overrides: Sequence[str]) -> list[str]:
    """The overrides, with one for each setting that is a relative path: the same in absolute form.
    The configuration is changed in the same way. A run can then go on from another working folder.

    A path that begins with ``~`` is absolute, in the home folder of whoever starts the run.
    """
    tree = cast(dict[str, Any], OmegaConf.to_container(settings(cfg), resolve=True))
    before, found = dict(paths(tree)), list(overrides)
    for name, after in paths(with_absolute_paths(tree)):
        typed_as = before[name] if isinstance(before[name], list) else [before[name]]
        if before[name] == after or all(one.startswith("~") for one in typed_as):
            continue
        # a folder may be called ${x}, which is no reference to a setting
        after = [escaped(one) for one in after] if isinstance(after, list) else escaped(after)
        OmegaConf.update(cfg, name, after)
        same = [override for override in found if key(override) == name]
        plus = same[0][: len(same[0]) - len(same[0].lstrip("+"))] if same else ""
        value = f"[{','.join(map(quoted, after))}]" if isinstance(after, list) else quoted(after)
        found = [override for override in found if override not in same]
        found.append(f"{plus}{name}={value}")
    return found


def escaped(text: str) -> str:
    """The text, for OmegaConf, which takes ``${`` for the beginning of a reference."""
    return text.replace("${", "\\${")


def phase(name: str, folders: Folders) -> Any:
    """The node of the sampler with that name, as a phase of a schedule.

    Raises:
        UserError: there is no such sampler.
    """
    if name not in folders.options("sampler"):
        raise UserError(f"sampler.phases: {unknown(name, folders.options('sampler'))}")
    return OmegaConf.to_container(OmegaConf.load(folders.file("sampler", name)))


def settings(cfg: DictConfig) -> DictConfig:
    """The settings without Hydra's own node, and without settings of parts that are not chosen.

    A recipe may have settings of modifiers, and the command line may choose other modifiers. A
    class of the user's own (``space._target_=my.Space``) has only the settings that the command
    line gives it.
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
    """Keeps only those settings of a node that the command line gives."""
    given = [key(o).removeprefix(f"{node}.") for o in line if key(o).startswith(f"{node}.")]
    kept: DictConfig = OmegaConf.create({})
    for name in given:
        OmegaConf.update(kept, name, OmegaConf.select(cfg, f"{node}.{name}"))
    OmegaConf.update(cfg, node, kept, merge=False)


def known_keys(overrides: Sequence[str], folders: Folders) -> list[str]:
    """Every key and group of the configuration, with the options that these overrides choose."""
    groups = folders.groups()
    with composition([o for o in overrides if key(o) in groups], folders) as cfg:
        tree = OmegaConf.to_container(settings(cfg), resolve=False)

    def flat(node: Any, prefix: str) -> Iterator[str]:
        for name, value in node.items() if isinstance(node, dict) else ():
            yield f"{prefix}{name}"
            yield from flat(value, f"{prefix}{name}.")

    return [*flat(tree, ""), *groups]
