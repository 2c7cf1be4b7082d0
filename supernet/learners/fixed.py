"""The logits do not learn."""

from dataclasses import dataclass

from supernet.learners.learner import Learner


@dataclass
class Fixed(Learner):
    """For methods that train weights only and leave the choice to a searcher (SPOS, FairNAS)."""

    moves = ""
