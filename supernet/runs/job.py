"""A job: one node of a run's graph. Its key stands for everything that its result depends on."""

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from supernet.runs.work import Work


class Job(ABC):
    """One node of the graph. A subclass is a frozen dataclass; its fields say which node it is.

    A job can run in another process or on another machine. Only its fields are sent there. It finds
    its settings, and the results of other jobs, in the :class:`~supernet.runs.work.Work`.
    """

    name: str  # the name under which the run keeps its result, such as retrain/0
    smaller: ClassVar[str] = (
        ""  # settings to make smaller if there is not enough memory for the job
    )

    @property
    def stages(self) -> tuple[str, ...]:
        """The names under which the job keeps checkpoints and logs rows."""
        return (self.name,)

    @abstractmethod
    def inputs(self, work: "Work") -> dict[str, Any]:
        """Everything that the result depends on: JSON values, and other jobs."""

    @abstractmethod
    def compute(self, work: "Work") -> dict[str, Any]:
        """Computes the result, a JSON value. It may write files into the run's folder.

        Raises:
            UserError: it failed in a way that the user can correct.
            Stopped: the run was asked to stop. The next start continues from the job's checkpoint.
        """

    def needs(self, work: "Work") -> Sequence["Job"]:
        """The jobs whose checkpoints :meth:`compute` reads. If one of these checkpoints is gone,
        the run first does that job again.
        """
        return ()

    def take_over(self, work: "Work", result: dict[str, Any]) -> None:  # noqa: B027
        """Copies other files of the job from the folder of the parent run, which computed it."""


def key_of(*parts: Any) -> str:
    """A short hash that differs if any of the parts (JSON values) differs."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def key_of_job(job: Job, work: "Work") -> str:
    """The key of a job: the hash of its name and its inputs. A job among the inputs is replaced by
    its key.
    """

    def plain(value: Any) -> Any:
        if isinstance(value, Job):
            return work.key(value)
        if isinstance(value, Mapping):
            return {name: plain(part) for name, part in value.items()}
        if isinstance(value, list | tuple):
            return [plain(part) for part in value]
        return value

    return key_of(job.name, plain(job.inputs(work)))
