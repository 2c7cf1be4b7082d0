"""The jobs of a sweep (``-m``): one that fails does not end the others, and all are compared."""

import shlex
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from supernet.cli.line import CommandLine, key
from supernet.cli.messages import correctable
from supernet.errors import UserError, one_line
from supernet.report.summary import Ended, sweep_table
from supernet.track.console import Progress
from supernet.train.loop import Stopped

Results = dict[str, Any]


@dataclass
class Sweep:
    """What became of the jobs of ``line`` so far. ``folder`` holds their folders."""

    line: CommandLine
    folder: Path
    ended: list[Ended] = field(default_factory=list)
    overrides: list[list[str]] = field(default_factory=list)  # of each of them

    def job(self, folder: Path, overrides: Sequence[str], run: Callable[[], Results]) -> None:
        """Runs one job in ``folder``. If it fails, one line says so.

        Raises:
            Stopped: the sweep was asked to stop.
        """
        results: Results = {}
        failure = None
        try:
            results = run()
        except Stopped:
            raise
        except Exception as error:
            failure = one_line(error)
            if not correctable(error):
                traceback.print_exc()
            Progress().message(f"{folder.name} failed: {failure}")
        self.ended.append(Ended(folder.name, failure, results))
        self.overrides.append(list(overrides))

    def end(self) -> None:
        """Compares all jobs.

        Raises:
            UserError: jobs have failed. The message has the line that does what is missing.
        """
        common = set(self.overrides[0]).intersection(*self.overrides)
        differ = [
            " ".join(one for one in overrides if one not in common) for overrides in self.overrides
        ]
        Progress().message(sweep_table(self.ended, differ))
        if failed := [one.name for one in self.ended if one.failure is not None]:
            raise UserError(
                f"{len(failed)} of {len(self.ended)} jobs failed ({', '.join(failed)}); when the "
                "cause is mended, do what is missing with: "
                f"{again(self.line, self.folder)}"
            )


def again(line: CommandLine, folder: Path) -> str:
    """The command that goes on with what is missing in ``folder``, that of a run or of a sweep."""
    if line.command == "reproduce":
        words = [one for one in line.words if key(one) not in ("from", "hydra.run.dir", "trust")]
        return shlex.join(["supernet", *words, f"from={line.parent}", f"hydra.run.dir={folder}"])
    if not line.sweeps:
        return f"supernet {line.command} from={shlex.quote(str(folder))}"
    words = [word for word in line.words if key(word) != "hydra.sweep.dir"]
    return shlex.join(["supernet", *words, f"hydra.sweep.dir={folder}"])
