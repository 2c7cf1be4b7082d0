"""Spaces of networks that grow: shortcut connections are added to a network, step by step."""
