"""Errors as RFC 9457 has them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from http import HTTPStatus

from starlette.responses import Response

__all__ = ["problem"]


def problem(status: int, detail: str, headers: Mapping[str, str] | None = None) -> Response:
    """An answer of `application/problem+json` with the status's own title."""
    body = {"type": "about:blank", "title": HTTPStatus(status).phrase, "status": status, "detail": detail}
    return Response(
        json.dumps(body), status, headers=dict(headers or {}), media_type="application/problem+json"
    )
