"""What is measured of a search while it runs, so that a collapse shows before it is over. Nothing
here changes the search.
"""
