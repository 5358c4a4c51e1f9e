"""Samples as columns: what sources append (`Received`) and what flows through the fold (`Batch`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar, Final, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa

__all__ = ["NO_TIME", "Batch", "Columns", "Received"]

F64 = npt.NDArray[np.float64]
I32 = npt.NDArray[np.int32]
I64 = npt.NDArray[np.int64]
U32 = npt.NDArray[np.uint32]

NO_TIME: Final = -(2**63)
"""Stands for "the source gave no time" in an int64 time column."""


class Columns:
    """Equally long NumPy columns with a fixed type each; immutable by convention once made."""

    __slots__ = ()
    DTYPES: ClassVar[dict[str, np.dtype[Any]]] = {}

    def __len__(self) -> int:
        first = next(iter(type(self).DTYPES))
        return len(getattr(self, first))

    @classmethod
    def of(cls, **columns: npt.ArrayLike) -> Self:
        """Columns from anything array-like, cast to the right types.

        Raises:
            ValueError: the columns differ in length.
        """
        made = {name: np.asarray(columns[name], dtype) for name, dtype in cls.DTYPES.items()}
        if len({column.shape for column in made.values()}) > 1:
            shapes = {name: column.shape for name, column in made.items()}
            raise ValueError(f"{cls.__name__} columns differ in length: {shapes}")
        return cls(**made)

    @classmethod
    def empty(cls) -> Self:
        """No rows."""
        return cls(**{name: np.empty(0, dtype) for name, dtype in cls.DTYPES.items()})

    @classmethod
    def concat(cls, parts: Sequence[Self]) -> Self:
        """All rows of `parts`, in order."""
        if len(parts) == 1:
            return parts[0]
        if not parts:
            return cls.empty()
        return cls(**{name: np.concatenate([getattr(part, name) for part in parts]) for name in cls.DTYPES})

    def take(self, rows: npt.NDArray[Any] | slice) -> Self:
        """The rows picked by indices, a mask or a slice."""
        return type(self)(**{name: getattr(self, name)[rows] for name in type(self).DTYPES})

    def with_columns(self, **columns: npt.NDArray[Any]) -> Self:
        """The same rows with some columns replaced."""
        return replace(self, **columns)  # type: ignore[type-var]

    def buffers(self) -> list[bytes]:
        """Each column's bytes (little endian), in the order of `DTYPES`."""
        return [np.ascontiguousarray(getattr(self, name)).tobytes() for name in type(self).DTYPES]

    @classmethod
    def from_buffers(cls, buffers: Sequence[bytes]) -> Self:
        """The inverse of `buffers`, without copying.

        Raises:
            ValueError: a buffer is missing or has the wrong length.
        """
        cls.check_buffers(buffers)
        made = {
            name: np.frombuffer(buffer, dtype)
            for (name, dtype), buffer in zip(cls.DTYPES.items(), buffers, strict=True)
        }
        return cls(**made)

    @classmethod
    def check_buffers(cls, buffers: Sequence[bytes]) -> None:
        """Return when `from_buffers` can take them.

        Raises:
            ValueError: a buffer is missing or has the wrong length.
        """
        if len(buffers) != len(cls.DTYPES):
            raise ValueError(f"{cls.__name__} has {len(cls.DTYPES)} columns, got {len(buffers)}")
        rows, rest = divmod(len(buffers[0]), next(iter(cls.DTYPES.values())).itemsize)
        for buffer, dtype in zip(buffers, cls.DTYPES.values(), strict=True):
            if rest or len(buffer) != rows * dtype.itemsize:
                raise ValueError(f"{cls.__name__} columns differ in length")

    def to_arrow(self) -> pa.RecordBatch:
        """An Arrow record batch over the same memory."""
        names = list(type(self).DTYPES)
        return pa.RecordBatch.from_arrays([pa.array(getattr(self, name)) for name in names], names)

    @classmethod
    def from_arrow(cls, batch: pa.RecordBatch) -> Self:
        """Columns over the memory of an Arrow record batch; a missing column raises KeyError."""
        return cls.of(**{name: batch.column(name).to_numpy(zero_copy_only=False) for name in cls.DTYPES})


_I32, _I64 = np.dtype("<i4"), np.dtype("<i8")
_U32, _F64 = np.dtype("<u4"), np.dtype("<f8")


@dataclass(frozen=True, slots=True, eq=False)
class Received(Columns):
    """Samples as a source heard them: nothing converted, nothing judged. All columns (n,).

    Attributes:
        series: index into the series dictionary (source, address, source unit).
        source_time: ns since epoch UTC by the device's clock, or `NO_TIME`.
        server_time: ns by an intermediate server's clock (OPC UA), or `NO_TIME`.
        arrival_time: ns by this host's clock when the bytes came in.
        value: float64 in the source's unit; NaN where there is none.
        status: OPC UA status code as the source gave it; Good where it gave none.
        reasons: marks only the source can make (`RETAINED`, `OVERFLOW`), else 0.
    """

    DTYPES: ClassVar[dict[str, np.dtype[Any]]] = {
        "series": _I32,
        "source_time": _I64,
        "server_time": _I64,
        "arrival_time": _I64,
        "value": _F64,
        "status": _U32,
        "reasons": _U32,
    }
    series: I32
    source_time: I64
    server_time: I64
    arrival_time: I64
    value: F64
    status: U32
    reasons: U32


@dataclass(frozen=True, slots=True, eq=False)
class Batch(Columns):
    """Samples of known tags on their way through the fold. All columns (n,).

    Attributes:
        tag: index into the `TagTable`.
        time: ns since epoch UTC at which the value was true; ascending per tag unless LATE.
        value: float64 in the tag's unit; NaN where there is none.
        status: OPC UA status code; only ever lowered on the way.
        reasons: `twinloop.status.Reason` bits.
        arrival: ns by this host's clock when the sample came in.
        estimate: the filter's value in the tag's unit; NaN before the tag's first usable sample.
        estimate_std: its standard deviation, tag units; NaN where the noise is not known or a tag is held.
        rate: the filter's rate of change, tag units per second.
    """

    DTYPES: ClassVar[dict[str, np.dtype[Any]]] = {
        "tag": _I32,
        "time": _I64,
        "value": _F64,
        "status": _U32,
        "reasons": _U32,
        "arrival": _I64,
        "estimate": _F64,
        "estimate_std": _F64,
        "rate": _F64,
    }
    tag: I32
    time: I64
    value: F64
    status: U32
    reasons: U32
    arrival: I64
    estimate: F64
    estimate_std: F64
    rate: F64

    @classmethod
    def raw(
        cls,
        *,
        tag: npt.ArrayLike,
        time: npt.ArrayLike,
        value: npt.ArrayLike,
        status: npt.ArrayLike | None = None,
        reasons: npt.ArrayLike | None = None,
        arrival: npt.ArrayLike | None = None,
    ) -> Batch:
        """Samples not yet judged or estimated: Good unless told, arriving when they were true.

        >>> Batch.raw(tag=[0], time=[1], value=[20.5]).status
        array([0], dtype=uint32)
        """
        n = len(np.asarray(tag))
        nothing = np.full(n, np.nan)
        return cls.of(
            tag=tag,
            time=time,
            value=value,
            status=np.zeros(n, np.uint32) if status is None else status,
            reasons=np.zeros(n, np.uint32) if reasons is None else reasons,
            arrival=time if arrival is None else arrival,
            estimate=nothing,
            estimate_std=nothing,
            rate=nothing,
        )


for _columns in (Received, Batch):
    assert tuple(field.name for field in fields(_columns)) == tuple(_columns.DTYPES)  # noqa: S101
