"""Finds the parts and the classes of a folder of pictures, and says what it left out."""

import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from supernet.errors import UserError, unknown

EXTENSIONS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")

TRAINING, TEST, VALIDATION = "training", "test", "validation"
# What a part may be called, in any case. WORDS are the words that may stand beside the name, as in
# seg_train, training-set or test_images.
NAMES = {
    TRAINING: {"train", "training", "trn", "trainset"},
    TEST: {"test", "testing", "tst", "testset"},
    VALIDATION: {"val", "valid", "validation", "dev", "valset"},
}
WORDS = {"seg", "set", "data", "dataset", "images", "image", "imgs", "img", "pictures", "split"}


@dataclass
class Found:
    """What a folder holds.

    Attributes:
        classes: the names of the classes, in order. Their numbers are their places in this list.
        train: the files of the training part (or of all parts, without ``test``), each with the
            number of its class.
        test: the files of the test part; ``None`` if there is no such part.
        parts: the folders of the two parts, as they are called; empty without parts.
        left_out: what was left out, in words.
    """

    classes: list[str]
    train: list[tuple[str, int]]
    test: list[tuple[str, int]] | None = None
    parts: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)


def found_in(root: Path) -> Found:
    """The classes and the files in a folder. There are two layouts.

    If ``root`` holds a folder for each part, these hold the class folders. A part is recognised by
    its name, in any case (:data:`NAMES`). The test part is the one that is called so, or else the
    validation part. Without parts, ``root`` holds the class folders.

    Entries whose names begin with a dot, and ``__MACOSX``, are never data.

    Raises:
        UserError: the folder holds no images, a class folder is empty, a class of the test part has
            no training images, or it is not clear which folder is which part.
    """
    ignored = Ignored(root)
    parts = parts_in(root, ignored)
    if not parts:
        classes, files = listed(root, ignored)
        return Found(classes, files, left_out=ignored.words())
    folders = [parts[role] for role in (TRAINING, TEST) if role in parts]
    classes, train = listed(parts[TRAINING], ignored)
    test = listed(parts[TEST], ignored, classes)[1] if TEST in parts else None
    names = [str(folder.relative_to(root)) for folder in folders]
    return Found(classes, train, test, names, ignored.words())


# --- parts


def parts_in(root: Path, ignored: "Ignored") -> dict[str, Path]:
    """The folders of the training and the test part; none if ``root`` holds class folders.

    Raises:
        UserError: it is not clear which folder is which part.
    """
    folders = visible_folders(root, ignored)
    roles: dict[str, list[Path]] = {}
    for folder in folders:
        if (role := role_of(folder.name)) is not None:
            roles.setdefault(role, []).append(folder)
    if not roles:
        return {}
    others = [one for one in folders if role_of(one.name) is None]
    named = [one for same in roles.values() for one in same]
    if len(roles) == 1 and others and not any(map(has_classes, named)):
        return {}  # a class whose name is that of a part, among other classes
    for role, same in roles.items():
        if len(same) > 1:
            names = " and ".join(f"{one.name}/" for one in same)
            raise UserError(
                f"{root}: {names} may both be the {role} part; rename one of them, or move it away"
            )
    found = {role: inside(same[0]) for role, same in roles.items()}
    if TRAINING not in found:
        names = ", ".join(f"{one.name}/" for one in named)
        raise UserError(f"{root}: has {names} but no training part; call its folder train")
    if not has_classes(found[TRAINING]):
        raise UserError(
            f"{found[TRAINING]}: the training part has no folder of images for each class; make one"
        )
    for one in others:
        ignored.add(f"{one.name}/ (not called as a part is)")
    for role in (TEST, VALIDATION):
        if role in found and not has_classes(found[role]):
            ignored.add(f"{roles[role][0].name}/ (has no class folders)")
            del found[role]
    if VALIDATION in found:
        if TEST in found:
            ignored.add(f"{roles[VALIDATION][0].name}/ (there is a test part)")
            del found[VALIDATION]
        else:
            found[TEST] = found.pop(VALIDATION)
    return found


def role_of(name: str) -> str | None:
    """The part that a folder of this name is; ``None`` if it is not called as a part is."""
    words = [word for word in re.split(r"[^a-z]+", name.lower()) if word]
    roles = [role for role, names in NAMES.items() for word in words if word in names]
    rest = [word for word in words if word not in WORDS]
    return roles[0] if len(roles) == 1 and len(rest) == 1 else None


def inside(part: Path) -> Path:
    """The folder itself, or the only one in it if that has the same name: train/train/..."""
    within = [entry for entry in part.iterdir() if not hidden(entry.name)]
    if len(within) == 1 and within[0].is_dir() and role_of(within[0].name) == role_of(part.name):
        return inside(within[0])
    return part


def has_classes(folder: Path) -> bool:
    """Whether a folder holds folders of images."""
    within = inside(folder)
    return any(
        any(is_image(path) for path in files_in(one)) for one in within.iterdir() if one.is_dir()
    )


# --- classes


def listed(
    folder: Path, ignored: "Ignored", known: Sequence[str] | None = None
) -> tuple[list[str], list[tuple[str, int]]]:
    """The class folders in ``folder``, and their files with the number of their class.

    Raises:
        UserError: there is no class folder, one has no images, or one is not among those that are
            ``known``; or the class folders are divided into parts.
    """
    names = [one.name for one in visible_folders(folder, ignored)]
    if not names:
        raise UserError(
            f"{folder}: there is no class folder in it; put the images of each class into one "
            "folder there"
        )
    classes, files = list(known or names), []
    for name in names:
        if name not in classes:
            raise UserError(
                f"{folder / name}: a class without training images ({unknown(name, classes)})"
            )
        images = []
        for path in files_in(folder / name, ignored):
            if is_image(path):
                images.append((str(path), classes.index(name)))
            else:
                ignored.file(path)
        require_no_parts(folder / name)
        if not images and known is None:
            raise UserError(
                f"{folder / name}: a class folder without images ({', '.join(EXTENSIONS)}); add "
                "some or remove it"
            )
        files += images
    return classes, files


def require_no_parts(folder: Path) -> None:
    """Raises a UserError if a class folder holds folders that are called as parts are."""
    roles = {role_of(entry.name) for entry in folder.iterdir() if entry.is_dir()} - {None}
    if len(roles) > 1:
        raise UserError(
            f"{folder}: holds folders for parts ({' and '.join(sorted(map(str, roles)))}); put the "
            "parts at the top, and in each of them a folder for each class"
        )


def visible_folders(folder: Path, ignored: "Ignored") -> list[Path]:
    """The folders in ``folder`` in the order of their names, without hidden ones."""
    entries = sorted(folder.iterdir())
    for entry in entries:
        if hidden(entry.name):
            ignored.hidden.add(str(entry))
        elif not entry.is_dir():
            ignored.file(entry, beside=True)
    return [one for one in entries if one.is_dir() and not hidden(one.name)]


def files_in(folder: Path, ignored: "Ignored | None" = None) -> Iterator[Path]:
    """Yields the files in a folder and in all folders in it, in the order of their names, without
    hidden ones. A link to a folder is followed once.
    """
    walked, seen = [], set()
    for place, folders, names in os.walk(folder, followlinks=True):
        real, within = os.path.realpath(place), list(folders)
        folders[:] = [] if real in seen else [name for name in folders if not hidden(name)]
        if real not in seen:
            walked.append((place, names))
            if ignored is not None:
                ignored.hidden |= {
                    os.path.join(place, name) for name in (*within, *names) if hidden(name)
                }
        seen.add(real)
    for place, names in sorted(walked):
        yield from (Path(place, name) for name in sorted(names) if not hidden(name))


def hidden(name: str) -> bool:
    """Whether an entry of this name is never data: hidden, or what macOS adds to archives."""
    return name.startswith(".") or name == "__MACOSX"


def is_image(path: Path) -> bool:
    return path.name.lower().endswith(EXTENSIONS)


# --- what was left out


class Ignored:
    """Collects what is left out of a folder, and says it in words."""

    def __init__(self, root: Path):
        self.root = root
        self.hidden: set[str] = set()
        self.extensions: Counter[str] = Counter()
        self.notes: list[str] = []
        self.seen: set[str] = set()

    def add(self, note: str) -> None:
        self.notes.append(note)

    def file(self, path: Path, beside: bool = False) -> None:
        """A file that is no image, or that lies ``beside`` the folders."""
        if str(path) not in self.seen:
            self.seen.add(str(path))
            kind = path.suffix.lower() or "no extension"
            self.extensions["image beside the folders" if beside and is_image(path) else kind] += 1

    def words(self) -> list[str]:
        found = list(self.notes)
        if self.hidden:
            found.append(f"{len(self.hidden)} hidden")
        if self.extensions:
            counts = [f"{count} {kind}" for kind, count in sorted(self.extensions.items())]
            found.append(f"other files: {', '.join(counts)}")
        return found


def described(found: Found, train: int, test: int, shares: Mapping[str, float]) -> str:
    """One line: which parts, classes and images were found, and what was left out."""
    few = ", ".join(found.classes[:6]) + (", ..." if len(found.classes) > 6 else "")
    if found.test is not None:
        parts = f"{found.parts[0]}/ is the training set and {found.parts[1]}/ the test set"
    else:
        where = f"{found.parts[0]}/ holds all images" if found.parts else "no parts"
        ((setting, share),) = shares.items()
        parts = f"{where}, so {share:.0%} of each class is the test set ({setting})"
    out = f"; left out: {', '.join(found.left_out)}" if found.left_out else ""
    return (
        f"{parts}; {len(found.classes)} classes ({few}), {train} training and {test} test images"
        f"{out}"
    )
