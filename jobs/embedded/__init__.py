"""Everything on one machine, for `darkroom demo` and `darkroom up`: Redis, worker, receiver and sandbox as children."""

from .processes import Command, DidNotStart, Process, Processes, free_port

__all__ = ["Command", "DidNotStart", "Process", "Processes", "free_port"]
