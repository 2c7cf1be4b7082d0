"""Export: writes one folder that holds the network in every form. Each form is compared with the
original before the folder is put in place.
"""

from supernet.export.bundle import export_network, load_bundle
from supernet.export.zoo import register_timm

__all__ = ["export_network", "load_bundle", "register_timm"]
