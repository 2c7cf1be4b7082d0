"""Search spaces: what can be chosen, which choices are valid, and how to build the networks.

A space defines its decisions and the options of each. From these it builds the supernet, which
holds every option, and the standalone network of one architecture, which is plain PyTorch.
:mod:`supernet.spaces.space` holds the interface of every space. :mod:`supernet.spaces.nb201` and
:mod:`supernet.spaces.darts` are the two spaces of cells, as their papers define them.
"""
