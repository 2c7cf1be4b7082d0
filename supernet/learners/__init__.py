"""Learners: how the architecture parameters learn. One file each."""
