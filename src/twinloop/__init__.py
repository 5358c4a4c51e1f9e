"""twinloop keeps a live digital twin of a process plant in step with its sensors."""

from __future__ import annotations
