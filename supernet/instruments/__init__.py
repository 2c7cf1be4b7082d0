"""Instruments measure a search while it runs, so that a collapse shows before the search is over.
They do not change the search.
"""
