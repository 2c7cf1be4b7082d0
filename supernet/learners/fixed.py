"""A learner that moves nothing."""

from dataclasses import dataclass

from supernet.learners.learner import Learner


@dataclass
class Fixed(Learner):
    """For methods that train only the weights and leave the choice to a searcher (SPOS,
    FairNAS).
    """

    moves = ""
