"""Search spaces: what can be chosen, which choices are valid, and how to build the networks.

A space says which decisions there are and which options each has. From that it builds the supernet,
which holds every option, and the standalone network of one architecture, which is plain PyTorch.
:mod:`supernet.spaces.space` holds what every space must offer; :mod:`supernet.spaces.nb201` and
:mod:`supernet.spaces.darts` are the two spaces of cells, as their papers define them.
"""
