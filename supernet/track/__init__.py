"""Where the figures of a run go: JSON lines always, Weights & Biases by default, and the console
for a person watching.
"""

from supernet.track.interface import NoTracker, Tracker, Trackers
from supernet.track.jsonlines import JsonLines

__all__ = ["JsonLines", "NoTracker", "Tracker", "Trackers"]
