"""Learners move the architecture parameters. One file each."""
