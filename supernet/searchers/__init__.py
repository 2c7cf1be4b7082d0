"""Searchers: which architecture, judged with inherited weights, is the best. One file each."""
