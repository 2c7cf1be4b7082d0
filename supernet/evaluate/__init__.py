"""Judging networks and judgements: accuracy, learning curves, rank correlations and intervals."""
