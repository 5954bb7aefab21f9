"""Everything on one machine, for `darkroom demo` and `darkroom up`: Redis, worker, receiver and sandbox as child processes."""

from .ports import PortUnavailable, check_port, free_port
from .processes import Command, DidNotStart, Process, Processes

__all__ = ["Command", "DidNotStart", "PortUnavailable", "Process", "Processes", "check_port", "free_port"]
