"""Data sets of uint8 images, their splits, and endless streams of augmented batches.

A stream that is restored from a checkpoint continues with the same bits.
"""

from supernet.data.augment import Augment
from supernet.data.batches import Batches, calibration_indices, evaluation_batches
from supernet.data.dataset import FileImages, ImageData, Images, TensorImages
from supernet.data.sources import Digits, Folder, Npz, Source, Torchvision
from supernet.data.splits import Splits, split
from supernet.data.text import Text, Tokens

__all__ = [
    "Augment",
    "Batches",
    "Digits",
    "FileImages",
    "Folder",
    "ImageData",
    "Images",
    "Npz",
    "Source",
    "Splits",
    "TensorImages",
    "Text",
    "Tokens",
    "Torchvision",
    "calibration_indices",
    "evaluation_batches",
    "split",
]
