"""The tracker for Weights & Biases (W&B). No other module imports ``wandb``.

The package is imported only when a run starts to use it.
"""

import os
import re
import secrets
import shutil
import socket
import urllib.parse
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from supernet.errors import UserError, unknown
from supernet.files import within, write_json
from supernet.shapes import WandBJob, read
from supernet.track.interface import Tracker
from supernet.track.jsonlines import rows_from

MODES = ("offline", "online", "disabled")
CONNECTING = 5.0  # seconds until a server must answer


@dataclass
class WandB(Tracker):
    """Sends the rows of a run to one W&B run, which has the same id in every session.

    The tracker reads ``FOLDER/metrics.jsonl``, which the tracker before it writes. The step in W&B
    is the number of the row. W&B thus holds exactly the rows of that file, however often the run
    was stopped or killed. In the mode "online", each session sends the rows that W&B does not have
    yet. In the mode "offline", each session writes all rows from the first one on, and then deletes
    the folders of earlier sessions. One folder remains to be uploaded:
    ``wandb sync FOLDER/wandb/offline-run-*``. This mode needs neither an account nor a network.
    W&B's own files are in ``FOLDER/wandb``.

    The tracker does nothing in the mode "disabled", which is also the mode if the environment has
    ``WANDB_MODE=disabled``, as for every program that uses W&B.
    """

    mode: str = "offline"
    project: str = "supernet"
    entity: str | None = None
    name: str | None = None  # None: the setting ``name`` of the run
    tags: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise UserError(f"tracker.mode: {unknown(self.mode, MODES)}")
        self._run: Any = None  # the wandb.Run, from the first row to the end

    @property
    def disabled(self) -> bool:
        return "disabled" in (self.mode, os.environ.get("WANDB_MODE"))

    def start(
        self, folder: Path, config: Mapping[str, Any], state: Mapping[str, Any] | None = None
    ) -> None:
        """See :meth:`Tracker.start`.

        In the mode "online" the W&B run begins here, so that a missing login raises at once. In the
        mode "offline" it begins with the first row.
        """
        self._folder, self._config = Path(folder), dict(config)
        self._rows, self._offset = 0, 0  # how far metrics.jsonl has been read
        self._stages: set[str] = set()
        if self.mode == "online" and not self.disabled:
            self._begin()

    def log(self, stage: str, step: int, metrics: Mapping[str, float]) -> None:
        """Sends all new rows of ``metrics.jsonl``. The last of them is the one given here."""
        self._follow()

    def summary(self, values: Mapping[str, Any]) -> None:
        self._keep(summary=dict(values))

    def artifact(self, name: str, kind: str, paths: Sequence[Path]) -> None:
        if self.disabled:
            return
        relative = [os.path.relpath(path, self._folder) for path in paths]
        self._keep(
            artifacts=self._kept().get("artifacts", {}) | {name: {"kind": kind, "paths": relative}}
        )

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        if not self.disabled:
            shown = {"columns": list(columns), "rows": [list(row) for row in rows]}
            self._keep(tables=self._kept().get("tables", {}) | {name: shown})

    def close(self, exit_code: int = 0) -> None:
        if self._run is None:
            return
        kept = self._kept()
        own = Path(self._run.dir).parent  # dir is FOLDER/wandb/offline-run-TIME-ID/files
        self._send_artifacts(kept.get("artifacts", {}))
        self._run.summary.update(kept.get("summary", {}) | tables_of(kept.get("tables", {})))
        self._run.finish(exit_code=exit_code)
        self._run = None
        if self.mode == "offline":
            for earlier in own.parent.glob(f"offline-run-*-{kept['id']}*"):
                if earlier != own:
                    shutil.rmtree(earlier)

    def _begin(self) -> None:
        """Starts the W&B run of this session.

        Raises:
            UserError: there is no W&B login, or W&B cannot be reached.
        """
        import wandb

        online = self.mode == "online"
        try:
            # W&B prints no banner and no hints
            wandb.setup(wandb.Settings(silent=True))
            if online and not wandb.login(prompt=False, verify=False):
                raise UserError(
                    "tracker.mode=online needs a W&B login, and there is none: run `wandb login`, "
                    "or set WANDB_API_KEY, or choose tracker.mode=offline"
                )
            if online:
                require_reachable(wandb.setup().settings.base_url)
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
                reinit="create_new",  # does not touch a W&B run that the caller may have
                settings=wandb.Settings(
                    silent=True,
                    console="off",
                    disable_code=True,
                    symlink=False,
                    allow_val_change=True,
                    init_timeout=30.0,  # seconds
                    x_transaction_log_flush_interval=1.0,  # seconds; a killed run may lose these
                ),
            )
        except UserError:
            raise
        except Exception as error:  # W&B raises many types: for the login, network, project, disk
            raise UserError(
                f"W&B cannot start: {' '.join(str(error).split())}; solve this or choose "
                "tracker.mode=offline"
            ) from error
        # With this variable, processes that this one starts would share its W&B service. If one of
        # them is killed, the service keeps its run "in use".
        os.environ.pop("WANDB_SERVICE", None)
        self._had = self._run.step  # how many rows W&B has from earlier online sessions

    def _follow(self) -> None:
        if self.disabled:
            return
        if self._run is None:
            self._begin()
        path = self._folder / "metrics.jsonl"
        if not path.exists():
            return
        rows, self._offset = rows_from(path, self._offset)
        for row in rows:
            self._send(row)

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
            for name in described["paths"]:
                if (path := within(self._folder, name)).is_file():
                    # immutable: W&B need not first copy the file to the user's home
                    artifact.add_file(str(path), policy="immutable")
            self._run.log_artifact(artifact)

    # job.json holds what every session must know: the id of the W&B run, and the summary, the
    # tables and the artifacts, which an offline run holds besides the rows.

    def _kept(self) -> dict[str, Any]:
        path = self._folder / "wandb" / "job.json"
        if not path.exists():
            write_json(path, {"id": secrets.token_hex(4)})
        kept: dict[str, Any] = read(path, WandBJob)
        return kept

    def _keep(self, **values: Any) -> None:
        if not self.disabled:
            write_json(self._folder / "wandb" / "job.json", self._kept() | values)
            self._follow()


def tables_of(kept: Mapping[str, Any]) -> dict[str, Any]:
    """The tables as W&B's own. They are part of the summary, because they belong to no step. W&B
    makes the names of files of theirs, so other characters than letters become dashes.
    """
    import wandb

    return {
        re.sub(r"\W+", "-", name): wandb.Table(columns=table["columns"], data=table["rows"])
        for name, table in kept.items()
    }


def require_reachable(url: str) -> None:
    """Raises a UserError if nothing answers at ``url``, the address of the W&B server, or at the
    proxy that leads there. W&B itself would try for half a minute.
    """
    server = urllib.parse.urlsplit(url)
    proxy = urllib.request.getproxies().get(server.scheme)
    if proxy and not urllib.request.proxy_bypass(server.netloc):
        server = urllib.parse.urlsplit(proxy if "//" in proxy else f"//{proxy}")
    port = server.port or (443 if server.scheme == "https" else 80)
    try:
        socket.create_connection((server.hostname or "", port), timeout=CONNECTING).close()
    except (OSError, ValueError) as error:
        raise UserError(
            f"tracker.mode=online: W&B cannot be reached, nothing answers at {server.hostname}:"
            f"{port} ({error}); choose tracker.mode=offline, and send the run later"
        ) from error
