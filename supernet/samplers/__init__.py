"""Samplers choose the mixtures on which the shared weights train in each step. One file each."""
