"""Budgets of the shared data's images, whose tables are counted once: that takes longer than most
tests.
"""

from supernet.cost.budget import Budget
from tests.tasks import task_of

_TABLES = {}


def budget_of(space, **limits: float) -> Budget:
    """The budget of a space for three classes of 8×8 images; ``limits`` that cannot be kept are not
    noticed.
    """
    budget = Budget(space, task_of(3, 1))
    if repr(space) not in _TABLES:
        _TABLES[repr(space)] = budget.tables
    budget.tables, budget.limits = _TABLES[repr(space)], limits
    return budget
