"""Searchers look for the best architecture; each one that they propose is judged with inherited
weights. One file each.
"""
