"""Trackers and the console: they take the figures of a run.

Every run writes them as JSON lines, by default also to Weights & Biases, and shows them on the
console.
"""

from supernet.track.interface import NoTracker, Tracker, Trackers
from supernet.track.jsonlines import JsonLines

__all__ = ["JsonLines", "NoTracker", "Tracker", "Trackers"]
