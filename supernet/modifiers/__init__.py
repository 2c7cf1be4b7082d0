"""Modifiers change the mixtures of any sampler. One file each."""
