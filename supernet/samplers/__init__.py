"""Samplers: which mixtures the shared weights train on in a step. One file each."""
