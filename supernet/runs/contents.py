"""Is the data what it was? What a run was begun with, compared with what is there now."""

from supernet.config import paths
from supernet.errors import UserError
from supernet.runs.folder import State
from supernet.runs.setup import CHANGE_NOTHING, SOURCE, Contents, Setup
from supernet.track.console import Progress


def require_same_content(
    setup: Setup, state: State, parent: State | None, progress: Progress
) -> bool:
    """Compares the data set, and the files that settings name, with what they held when the run
    began. A new run records them. Returns whether there is something new to record.

    It says in a line each: what the data set is; whether a file that no result of the run depends
    on has changed; and whether the parent run had other data.

    Raises:
        UserError: a file, or the data set, that results depend on has changed since.
    """
    now = setup.contents
    for before in (parent.contents if parent is not None else None, state.contents):
        keep_what_is_gone(setup, before or {})
    for remark in setup.data.remarks:
        progress.message(f"data: {remark}")
    for name in changed(state.contents or {}, now):
        if name.partition(".")[0] not in CHANGE_NOTHING:
            raise UserError(
                f"{name}={where(now, name)}: holds something else than when the run in "
                f"{state.folder} began; restore it, or begin anew, without from="
            )
        progress.message(f"{name}={where(now, name)}: holds something else than before")
    if parent is not None and state.contents is None:
        for name in changed(parent.contents or {}, now):
            progress.message(
                f"{name}={where(now, name)}: holds something else than in {parent.folder}; what "
                "depends on it is computed anew"
            )
    recorded, state.contents = state.contents, now
    return recorded != now


def keep_what_is_gone(setup: Setup, before: Contents) -> None:
    """Adds to the setup's contents what it knows ``before`` of files that are not there any more.

    A run has taken from such a file what it needs, so that its keys stay what they were.
    """
    named = dict(paths(setup.settings))
    for name, known in before.items():
        if name not in setup.contents and named.get(name) == known["setting"]:
            setup.contents[name] = known


def changed(before: Contents, now: Contents) -> list[str]:
    """The settings that have the same value as before, and name something else."""
    return [
        name
        for name, known in now.items()
        if name in before
        and before[name]["setting"] == known["setting"]
        and before[name]["content"] != known["content"]
    ]


def where(contents: Contents, name: str) -> str:
    """The file or folder that a setting names, for a message."""
    setting = contents[name]["setting"]
    if name != SOURCE:
        return str(setting)
    return str(setting.get("path") or setting.get("root") or setting["_target_"])
