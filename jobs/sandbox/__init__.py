"""The vendors as one local server, exact in shapes and faults, with images drawn from the requests.

Each vendor lives under a path of its own (`/deepmode`, `/chainhub`, `/phota`, `/aimlapi`), its results under `/files`,
and `/_sandbox` shows what was submitted, charged and served, and arms faults.
"""

from .app import create_app
from .faults import VENDORS, VOCABULARY, UnknownFault
from .server import Sandbox
from .world import Settings

__all__ = ["VENDORS", "VOCABULARY", "Sandbox", "Settings", "UnknownFault", "create_app"]
