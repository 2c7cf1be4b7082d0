"""The tricks of a recipe that a study can leave out, each in turn: ``study.ablate``.

What a method gains over another one may come from the search or from the recipe. Yang, Esperança &
Carlucci (ICLR 2020) find that the recipe often gives more.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from supernet.errors import UserError, unknown


@dataclass(frozen=True)
class Trick:
    """``words`` say what a training is without it; ``off`` gives the ``setting`` without it."""

    words: str
    setting: str
    off: Callable[[Any], Any] = lambda value: 0

    def changes(self, settings: Mapping[str, Any]) -> dict[str, str]:
        """What leaves the trick out of a run with these ``settings``; nothing if the run does not
        use it.
        """
        value: Any = settings
        for step in self.setting.split("."):
            value = value.get(step) if isinstance(value, Mapping) else None
        if not value or (off := self.off(value)) == value:
            return {}
        return {self.setting: str(off).lower()}


def half(value: int) -> int:
    return max(1, value // 2)


TRICKS = {
    "crop": Trick("without crop", "data.augment.crop_padding"),
    "flip": Trick("without flip", "data.augment.flip", lambda value: False),
    "cutout": Trick("without cutout", "data.augment.cutout"),
    "drop_path": Trick("without drop_path", "retrain.drop_path"),
    "auxiliary": Trick("without auxiliary", "retrain.auxiliary_weight"),
    "label_smoothing": Trick("without label_smoothing", "retrain.label_smoothing"),
    "weight_decay": Trick("without weight_decay", "retrain.weight_decay"),
    "warmup": Trick("without warmup", "retrain.warmup_epochs"),
    "average": Trick("without average", "retrain.ema_decay"),
    "epochs": Trick("with half epochs", "retrain.epochs", half),
    "channels": Trick("with half channels", "space.evaluation.channels", half),
}


def trick(name: str) -> Trick:
    """The trick of that name.

    Raises:
        UserError: there is none.
    """
    if name not in TRICKS:
        raise UserError(f"study.ablate: {unknown(name, list(TRICKS))}")
    return TRICKS[name]
