"""A study: several methods, on several spaces and data sets, with several seeds, compared.

``cells.py`` says which runs there are, ``run.py`` runs them, ``comparison.py`` compares what they
found, and ``published.py`` reads a published table instead of retraining.
"""
