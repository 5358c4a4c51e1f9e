"""Libraries that twinloop does without until somebody asks for what needs them."""

from __future__ import annotations

import importlib
from typing import Any

__all__ = ["needed"]


def needed(library: str) -> Any:
    """The library, loaded.

    Raises:
        ImportError: it is not installed; the message says how it is.
    """
    try:
        return importlib.import_module(library)
    except ImportError as error:
        name = library.partition(".")[0]
        raise ImportError(f"{name} is not installed, and this needs it: pip install {name}") from error
