"""What makes training on a weighted mixture fast: ``README.md`` in this folder says how.

Nothing here is needed to understand what an operation computes. The operations themselves, one
module each, are in :mod:`supernet.ops`, and import nothing from here.
"""
