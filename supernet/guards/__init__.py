"""Guards act on a search that is about to collapse. They are off unless a method's paper uses one
or the user switches one on.
"""
