"""What the sections of a plant file share: unknown keys are refused, a type is chosen, certificates named."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from twinloop.config.fields import FilePath, mapping, read_choice

__all__ = ["Section", "TlsConfig", "typed"]


class Section(BaseModel):
    """A mapping of the plant file; a key it does not know is refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    @model_validator(mode="before")
    @classmethod
    def _empty_means_defaults(cls, value: object) -> object:
        return value if isinstance(value, cls) else mapping(value)


_LATER: Final = ("kafka",)
"""Types that the interface names and this version lacks."""


def typed(default: str, *known: str, shown_by: Mapping[str, str] = MappingProxyType({})) -> Any:
    """Puts the default type into a mapping that names none, and refuses an unknown one in words.

    Args:
        default: the type.
        known: all there are.
        shown_by: keys that only another type has, to say so where the type was forgotten.
    """

    def read(value: object) -> object:
        section = mapping(value) if not isinstance(value, BaseModel) else value
        if not isinstance(section, dict):
            return section
        kind = section.get("type", default)
        forgotten = next((key for key in section if "type" not in section and key in shown_by), None)
        if forgotten is not None:
            raise ValueError(f"{forgotten!r} goes with `type: {shown_by[forgotten]}`, which is missing")
        if kind in _LATER:
            raise ValueError(f"{kind!r} is not available in this version; expected {' or '.join(known)}")
        return {**section, "type": read_choice(kind, known)}

    return BeforeValidator(read)


class TlsConfig(Section):
    """`tls`: which certificates are trusted and shown."""

    ca: FilePath | None = Field(None, description="CA certificates to trust (PEM); default: the system's")
    cert: FilePath | None = Field(None, description="client certificate (PEM), where the broker asks for one")
    key: FilePath | None = Field(None, description="private key of `cert` (PEM)")
