"""The HTTP API."""

from __future__ import annotations

from fastapi import APIRouter

from twinloop.web.look import Look

__all__ = ["api_router"]


def api_router(look: Look) -> APIRouter:
    """The API over a running twin."""
    del look
    return APIRouter()
