"""Composes a checked configuration from overrides, with Hydra."""

import contextlib
import difflib
import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, cast

from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import ConfigCompositionException, HydraException, MissingConfigException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from supernet.cli.line import key, owner_of_target
from supernet.cli.options import Folders, conf_dir
from supernet.cli.overrides import literal
from supernet.cli.trust import leaves, require_known_classes
from supernet.config import (
    SEVERAL,
    Config,
    escaped,
    paths,
    typed,
    with_absolute_paths,
    with_named_phases,
)
from supernet.errors import UserError, unknown


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
        cfg = whole((*folders.override(), *overrides))
        require_inside(cfg.hydra.runtime.choices)
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


@functools.lru_cache(maxsize=16)
def whole(words: tuple[str, ...]) -> DictConfig:
    """What Hydra composes from these words, with Hydra's own node; nobody may change it.

    It takes a tenth of a second, and one command asks for the same several times. A new command
    forgets it (:func:`.entry.main`), because the files may have changed.
    """
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        return compose("config", list(words), return_hydra_config=True)


def require_inside(choices: Mapping[str, Any]) -> None:
    """Raises a UserError if the name of a chosen option is a path to a file elsewhere."""
    for group, option in choices.items():
        if isinstance(option, str) and leaves(option):
            raise UserError(
                f"{group}={option}: give the name of an option, not a path; for options of your "
                "own there is --config-dir"
            )


def composed(overrides: Sequence[str], folders: Folders | None = None) -> Config:
    """The configuration that these overrides give, checked."""
    with composition(overrides, folders) as cfg:
        return to_config(cfg, folders)


def as_yaml(cfg: DictConfig) -> str:
    """The configuration as Hydra's flag ``--cfg job`` prints it: without Hydra's own node."""
    own = OmegaConf.masked_copy(cfg, [str(name) for name in cfg if name != "hydra"])
    return OmegaConf.to_yaml(own)


def require_right(overrides: Sequence[str], folders: Folders) -> None:
    """Raises a UserError if it can be known, without an import of torch, that a key, a name or a
    value of these overrides is wrong. The settings of parts are typed later, by their classes.
    """
    with composition(overrides, folders) as cfg:
        typed(Config, plain(cfg, folders), "")


def to_config(cfg: DictConfig, folders: Folders | None = None) -> Config:
    """The typed configuration, without Hydra's own node."""
    folders = folders or Folders()
    tree = plain(cfg, folders)
    if folders.recorded is not None:
        require_known_classes(tree, folders.recorded)
    return typed(Config, with_absolute_paths(tree), "")


def plain(cfg: DictConfig, folders: Folders) -> dict[str, Any]:
    """The settings as plain values, without Hydra's own node. The names of methods and of phases
    are checked, and phases are replaced by their nodes.
    """
    tree = cast(
        dict[str, Any],
        OmegaConf.to_container(settings(cfg), resolve=True, throw_on_missing=True),
    )
    for setting, group in (("methods", "method"), ("spaces", "space"), ("data", "data")):
        for option in tree["study"][setting]:
            if option not in folders.options(group):
                raise UserError(f"study.{setting}: {unknown(option, folders.options(group))}")
    phase = functools.partial(node_of, "sampler", folders=folders, setting="sampler.phases")
    tree["sampler"] = with_named_phases(tree["sampler"], phase)
    return tree


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
        kept = [escaped(one) for one in after] if isinstance(after, list) else escaped(after)
        OmegaConf.update(cfg, name, kept)
        same = [override for override in found if key(override) == name]
        plus = same[0][: len(same[0]) - len(same[0].lstrip("+"))] if same else ""
        value = f"[{','.join(map(literal, after))}]" if isinstance(after, list) else literal(after)
        found = [override for override in found if override not in same]
        found.append(f"{plus}{name}={value}")
    return found


def node_of(group: str, name: str, folders: Folders, setting: str) -> Any:
    """The node of the option of that name, such as a sampler that is a phase of a schedule.

    Raises:
        UserError: there is no such option. The message names the ``setting`` that has the name.
    """
    if name not in folders.options(group):
        raise UserError(f"{setting}: {unknown(name, folders.options(group))}")
    return OmegaConf.to_container(OmegaConf.load(folders.file(group, name)))


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
    """Every key and group of the configuration, with the options that these overrides choose.

    An override of a group by a mapping of settings chooses none, and may be the wrong one.
    """
    groups = folders.groups()
    choices = [o for o in overrides if key(o) in groups and "={" not in o]
    with composition(choices, folders) as cfg:
        tree = OmegaConf.to_container(settings(cfg), resolve=False)

    def flat(node: Any, prefix: str) -> Iterator[str]:
        for name, value in node.items() if isinstance(node, dict) else ():
            yield f"{prefix}{name}"
            yield from flat(value, f"{prefix}{name}.")

    return [*flat(tree, ""), *groups]


def explained(error: Exception, folders: Folders, known: Callable[[], Sequence[str]]) -> str:
    """One line for an error of Hydra: the key, what was expected, and the nearest valid name.

    ``known`` returns every key of the configuration. It is called only if it is needed.
    """
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        group, _, name = error.missing_cfg_file.rpartition("/")
        return f"{group}: {unknown(name, folders.options(group))}"
    if "Ambiguous value" in str(error):
        several = str(error).partition("'")[2].partition("'")[0]
        return (
            f"{several}: add -m to run a job for each of these values; one value that is a list "
            "is written KEY=[a,b]"
        )
    cause = error.__cause__ or error
    at = getattr(cause, "full_key", None) or ""
    no_such_key = isinstance(error, ConfigCompositionException) and "is not in" in str(cause)
    if no_such_key or "not in '" in str(cause):
        wrong = at or str(error).partition("'")[2].partition("'")[0]
        group, _, part = wrong.partition(".")
        if group in SEVERAL and part in folders.options(group):
            return f"{wrong}: {part} is not chosen, so it has no settings; add {group}=[{part}]"
        return f"{wrong}: there is no such setting; {hint(wrong, known(), folders)}"
    text = str(cause).splitlines()[0]
    return f"{at}: {text}" if at else str(error)


def hint(wrong: str, known: Sequence[str], folders: Folders) -> str:
    """What the user may have meant by the key ``wrong``, which is not one of the ``known`` ones.

    A key that is only similar to another one is suggested if it stands in the same place. In
    another place a key must have the same last name. Otherwise the settings in its place are
    listed.
    """
    place, _, name = wrong.rpartition(".")
    beside = {one.rpartition(".")[2]: one for one in known if one.rpartition(".")[0] == place}
    beside.pop("_target_", None)
    if near := similar(name, beside):
        return f"did you mean {beside[near]}?"
    group, _, rest = wrong.partition(".")
    if group in folders.groups():
        options = [option for option in folders.options(group) if has(folders, group, option, rest)]
        if options:
            return f"the chosen {group} has none; these have it: {', '.join(options)}"
    if elsewhere := [one for one in known if one.rpartition(".")[2] == name]:
        return f"did you mean {' or '.join(elsewhere)}?"
    if place and beside:
        return f"there are: {', '.join(beside.values())}"
    places = {one.rpartition(".")[0] for one in known} - {""}
    if place and place not in known and (near := similar(place, places)):
        return f"did you mean {near}?"
    return f"see supernet --cfg {'hydra' if group == 'hydra' else 'job'}"


def similar(word: str, words: Iterable[str]) -> str:
    """The most similar of ``words``, "" if none is similar enough to be what was meant."""
    return next(iter(difflib.get_close_matches(word, sorted(words), n=1, cutoff=0.7)), "")


def has(folders: Folders, group: str, option: str, name: str) -> bool:
    """Whether the YAML of an option has a setting of this name."""
    node: Any = OmegaConf.load(folders.file(group, option))
    for step in name.split("."):
        node = node._get_node(step) if isinstance(node, DictConfig) else None
    return node is not None
