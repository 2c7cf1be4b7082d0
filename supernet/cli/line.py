"""Parses what was typed: the command, ``from=``, Hydra's flags, and the overrides.

``--help`` and ``--version`` need nothing beyond this module, so it imports neither Hydra nor torch.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import NoReturn

from supernet.cli.messages import COMMANDS, help_text
from supernet.cli.options import Folders
from supernet.errors import UserError, unknown

PARTS = ("sampler", "learner", "modifier", "guard", "searcher")  # the groups that a method chooses


@dataclass
class CommandLine:
    """The parts of a command line: the command, the folder of ``from=`` and whether it is trusted,
    the flags of Hydra, the overrides, and the folders of options.
    """

    words: list[str] = field(default_factory=list)  # as they were typed
    command: str = "run"
    parent: Path | None = None
    flags: list[str] = field(default_factory=list)
    overrides: list[str] = field(default_factory=list)
    folders: Folders = field(default_factory=Folders)
    typed: tuple[str, ...] = ()  # the overrides that the user typed, without recorded ones
    trust: bool = False  # the user says that recorded classes and folders of options may be used
    only_check: bool = False  # of reproduce: nothing is run

    @property
    def sweeps(self) -> bool:
        return "--multirun" in self.flags

    @property
    def goes_on_from(self) -> Path | None:
        """The run whose results are taken over. A reproduction takes over nothing."""
        return None if self.command == "reproduce" else self.parent


class Flags(argparse.ArgumentParser):
    """The flags, most of which are Hydra's. :func:`parse` reads all other words."""

    def __init__(self) -> None:
        super().__init__("supernet", add_help=False, allow_abbrev=False)
        self.add_argument("words", nargs="*")
        self.add_argument("-h", "--help", action="store_true")
        self.add_argument("--version", action="version", version=f"supernet {version('supernet')}")
        self.add_argument("-m", "--multirun", action="store_true")
        self.add_argument("-c", "--cfg", choices=["job", "hydra", "all"])
        self.add_argument("-p", "--package")
        self.add_argument("--resolve", action="store_true")
        info = ["all", "config", "defaults", "defaults-tree", "plugins", "searchpath"]
        self.add_argument("-i", "--info", choices=info)
        self.add_argument("--hydra-help", action="store_true")
        self.add_argument("-cd", "--config-dir", type=Path)

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; see supernet --help")


def parse(arguments: Sequence[str] | None) -> CommandLine:
    """Parses a command line. If it asks for the help, it prints the help and exits.

    Raises:
        UserError: a word is not a command, a flag or KEY=VALUE, or a value is wrong.
    """
    typed = list(sys.argv[1:] if arguments is None else arguments)
    given = vars(Flags().parse_intermixed_args(typed))
    line, words = CommandLine(typed), given.pop("words")
    if (own := given.pop("config_dir")) is not None:
        line.folders = Folders.of([own])
    if given.pop("help"):
        print(help_text(line.folders))
        raise SystemExit(0)
    from supernet.cli.overrides import readable  # Hydra takes long to import

    for name, value in given.items():
        if value:
            flag = f"--{name.replace('_', '-')}"
            line.flags += [flag, *([value] if isinstance(value, str) else [])]
    for word in words:
        if word in COMMANDS:
            line.command = word
        elif word.startswith("from="):
            line.parent = Path(word.removeprefix("from=")).expanduser().resolve()
        elif word.startswith("trust="):
            line.trust = yes(word)
        elif word.startswith("only_check="):
            line.only_check = yes(word)
        elif word.endswith("=") and word.count("=") == 1 and len(word) > 1:
            raise UserError(f"{word}: there is no value; write {word}VALUE, or leave it out")
        elif "=" in word or word.startswith("~"):
            line.overrides += [readable(override, line.folders) for override in spelled_out(word)]
        else:
            known = f"{unknown(word, list(COMMANDS))}; everything else is KEY=VALUE"
            raise UserError(f"command: {known}")
    if (commands := [word for word in words if word in COMMANDS])[1:]:
        raise UserError(
            f"{' '.join(commands)}: one command at a time; supernet --help says what each includes"
        )
    if line.only_check and line.command != "reproduce":
        raise UserError("only_check=true: belongs to supernet reproduce; leave it out")
    if line.command == "reproduce" and line.sweeps:
        raise UserError("reproduce: repeats one run; leave out -m")
    line.overrides = added(line.overrides)
    line.typed = tuple(line.overrides)
    return line


def yes(word: str) -> bool:
    """Whether ``KEY=true`` was typed.

    Raises:
        UserError: the value is neither true nor false.
    """
    key, _, value = word.partition("=")
    if value not in ("true", "false"):
        raise UserError(f"{word}: {key} is true or false")
    return value == "true"


def spelled_out(word: str) -> list[str]:
    """The overrides that a word stands for. A list of samplers with their shares stands for a
    schedule of these samplers.
    """
    if word.startswith("sampler=["):
        return ["sampler=schedule", word.replace("sampler=", "sampler.phases=", 1)]
    return [word]


def added(overrides: Sequence[str]) -> list[str]:
    """The overrides. A class of the user's own (``space._target_=my.Space space.width=8``) has
    settings that are new keys; Hydra needs a ``++`` before these.
    """
    own = [node for node in map(owner_of_target, overrides) if node]
    return [
        f"++{override}" if any(override.startswith(f"{node}.") for node in own) else override
        for override in overrides
    ]


def owner_of_target(override: str) -> str:
    """The node whose class an override sets: ``space`` for ``space._target_=my.Space``."""
    name = key(override)
    return name.removesuffix("._target_") if name.endswith("._target_") else ""


def key(override: str) -> str:
    """The key of an override: ``+a.b=1`` -> ``a.b``."""
    return override.partition("=")[0].lstrip("+~")


def given_anew(override: str, overrides: Sequence[str]) -> bool:
    """Whether one of ``overrides`` has the same key, or chooses the part that ``override`` belongs
    to.
    """
    new = {key(other) for other in overrides}
    if "method" in new:
        new |= set(PARTS)
    return key(override) in new or key(override).partition(".")[0] in new
