"""Modifiers: what may be added to the mixtures of any sampler. One file each."""
