"""Judging networks: accuracy, with a subnet's inherited weights or a trained network's own."""
