"""Budgets for the shared test images. Their cost tables are counted only once, because that takes
longer than most tests.
"""

from functools import cache

from supernet.cost.budget import Budget
from tests.tasks import task_for, task_of
from tests.variants import SPACES

_TABLES = {}


def budget_of(space, **limits: float) -> Budget:
    """The budget of a space for three classes of 8×8 images. It is not checked whether any
    architecture keeps the ``limits``.
    """
    budget = Budget(space, task_of(3, 1))
    if repr(space) not in _TABLES:
        _TABLES[repr(space)] = budget.tables
    budget.tables, budget.limits = _TABLES[repr(space)], limits
    return budget


@cache
def unlimited(name: str) -> Budget:
    """The budget of a space of the list of variants, for a task that fits it, without limits. Tests
    must not change it.
    """
    space = SPACES[name]()
    return Budget(space, task_for(space))
