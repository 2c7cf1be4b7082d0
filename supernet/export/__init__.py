"""What leaves the house: one folder with the network in every form, each proven equal to the
original before it is called done.
"""

from supernet.export.bundle import export_network, load_bundle
from supernet.export.zoo import register_timm

__all__ = ["export_network", "load_bundle", "register_timm"]
