"""Weights & Biases: the one module that knows it, and the package is imported only when a run
starts to use it.
"""

import json
import os
import secrets
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from supernet.errors import UserError, unknown
from supernet.files import read_json, write_json
from supernet.track.interface import Tracker

MODES = ("offline", "online", "disabled")


@dataclass
class WandB(Tracker):
    """One W&B run per job, under the same id in every session of the job; its own files are in
    ``FOLDER/wandb``.

    It follows ``FOLDER/metrics.jsonl`` (the tracker that writes it stands before this one): W&B's
    step is the number of the row. So W&B holds exactly the rows of that file, however often the job
    was stopped or killed. An online run gets those that it does not have yet. An offline run is
    written anew from the first row, and then replaces what the sessions before it left, so that
    there is one folder to upload: ``wandb sync FOLDER/wandb/offline-run-*``. Offline needs neither
    account nor network.
    """

    mode: str = "offline"
    project: str = "supernet"
    entity: str | None = None
    name: str | None = None  # None is the name of the job
    tags: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise UserError(f"tracker.mode: {unknown(self.mode, MODES)}")
        self._run: Any = None  # W&B's, from the first row to the end

    def start(
        self, folder: Path, config: Mapping[str, Any], state: Mapping[str, Any] | None = None
    ) -> None:
        """See :meth:`Tracker.start`. Online, the W&B run begins here: a missing login is said now.
        Offline, with the first row.
        """
        self._folder, self._config = Path(folder), dict(config)
        self._rows, self._offset = 0, 0  # how far metrics.jsonl has been read
        self._stages: set[str] = set()
        if self.mode == "online":
            self._begin()

    def log(self, stage: str, step: int, metrics: Mapping[str, float]) -> None:
        """Passes on every row of ``metrics.jsonl`` that has not been yet; the last of them is this
        one.
        """
        self._follow()

    def summary(self, values: Mapping[str, Any]) -> None:
        self._keep(summary=dict(values))

    def artifact(self, name: str, kind: str, paths: Sequence[Path]) -> None:
        if self.mode == "disabled":
            return
        relative = [os.path.relpath(path, self._folder) for path in paths]
        self._keep(
            artifacts=self._kept().get("artifacts", {}) | {name: {"kind": kind, "paths": relative}}
        )

    def close(self, exit_code: int = 0) -> None:
        if self._run is None:
            return
        kept = self._kept()
        own = Path(self._run.dir).parent  # dir is FOLDER/wandb/offline-run-TIME-ID/files
        self._send_artifacts(kept.get("artifacts", {}))
        self._run.summary.update(kept.get("summary", {}))
        self._run.finish(exit_code=exit_code)
        self._run = None
        if self.mode == "offline":
            for earlier in own.parent.glob(f"offline-run-*-{kept['id']}*"):
                if earlier != own:
                    shutil.rmtree(earlier)

    def _begin(self) -> None:
        """Starts this session's W&B run.

        Raises:
            UserError: nobody is logged in, or W&B cannot be reached.
        """
        import wandb

        online = self.mode == "online"
        # no banner and no hints among the lines of the run
        wandb.setup(wandb.Settings(silent=True))
        if online and not wandb.login(prompt=False, verify=False):
            raise UserError(
                "tracker.mode=online needs a W&B login, and there is none: run `wandb login`, or "
                "set WANDB_API_KEY, or choose tracker.mode=offline"
            )
        try:
            self._run = wandb.init(
                id=self._kept()["id"],
                resume="allow" if online else None,
                mode=cast(Any, self.mode),  # one of MODES
                project=self.project,
                entity=self.entity,
                name=self.name or self._config.get("name"),
                tags=self.tags,
                config=self._config,
                dir=self._folder,
                reinit="create_new",  # leaves alone a run that the caller has of their own
                settings=wandb.Settings(
                    silent=True,
                    console="off",
                    disable_code=True,
                    symlink=False,
                    allow_val_change=True,
                    init_timeout=30.0,  # seconds
                    x_transaction_log_flush_interval=1.0,  # seconds; what a killed run may lack
                ),
            )
        except Exception as error:  # W&B has many: no login, no network, no project, no disk
            raise UserError(
                f"W&B cannot start: {' '.join(str(error).split())}; mend it or choose "
                "tracker.mode=offline"
            ) from error
        # W&B would have processes that this one starts share its service, where a killed one leaves
        # its run "in use".
        os.environ.pop("WANDB_SERVICE", None)
        self._had = self._run.step  # rows that an online run has from earlier sessions

    def _follow(self) -> None:
        if self.mode == "disabled":
            return
        if self._run is None:
            self._begin()
        path = self._folder / "metrics.jsonl"
        if not path.exists():
            return
        with open(path, "rb") as file:
            file.seek(self._offset)
            for line in file:
                self._send(json.loads(line))
            self._offset = file.tell()

    def _send(self, row: dict[str, Any]) -> None:
        stage, step, index = row.pop("stage"), row.pop("step"), self._rows
        self._rows += 1
        if stage not in self._stages:
            self._run.define_metric(f"{stage}/step", hidden=True)
            self._run.define_metric(f"{stage}/*", step_metric=f"{stage}/step")
            self._stages.add(stage)
        if index >= self._had:
            values = {f"{stage}/{name}": value for name, value in row.items() if value is not None}
            self._run.log(values | {f"{stage}/step": step}, step=index, commit=True)

    def _send_artifacts(self, artifacts: Mapping[str, Any]) -> None:
        import wandb

        for name, described in artifacts.items():
            artifact = wandb.Artifact(name, type=described["kind"])
            for path in map(self._folder.joinpath, described["paths"]):
                if path.is_file():
                    # immutable: W&B need not copy it to the user's home first
                    artifact.add_file(str(path), policy="immutable")
            self._run.log_artifact(artifact)

    # job.json holds what every session of the job must know: the id, and what an offline run is to
    # hold besides the rows.

    def _kept(self) -> dict[str, Any]:
        path = self._folder / "wandb" / "job.json"
        if not path.exists():
            write_json(path, {"id": secrets.token_hex(4)})
        kept: dict[str, Any] = read_json(path)
        return kept

    def _keep(self, **values: Any) -> None:
        if self.mode != "disabled":
            write_json(self._folder / "wandb" / "job.json", self._kept() | values)
            self._follow()
