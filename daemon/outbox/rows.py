"""Statements on many rows at once.

One of them is cheaper than many on one row, also because each step of a statement gives up the interpreter's lock, and a thread
that got it takes its time to give it back. They are written `OR FAIL`: what goes wrong ends the whole transaction anyway, and
SQLite need not keep what it would take to undo a half-done statement.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import chain
from typing import Any, TypeVar

T = TypeVar("T")
_MOST = 64


def chunks(values: Sequence[T]) -> Iterator[Sequence[T]]:
    """`values` in parts whose lengths are powers of two: few different statements, so that all of them stay prepared."""
    start, size = 0, _MOST
    while start < len(values):
        while size > len(values) - start:
            size //= 2
        yield values[start : start + size]
        start += size


def padded(values: Sequence[T]) -> Iterator[Sequence[T]]:
    """The same for lists in which the last value may be repeated: fewer parts."""
    for start in range(0, len(values), _MOST):
        part = values[start : start + _MOST]
        size = 1 << (len(part) - 1).bit_length()
        yield [*part, *[part[-1]] * (size - len(part))]


@cache
def marks(count: int) -> str:
    """`count` parameters of a list."""
    return ",".join("?" * count)


def insert(connection: sqlite3.Connection, into: str, rows: Sequence[Sequence[Any]], conflict: str = "") -> None:
    """Insert `rows` into a table; `into` may name its columns, `conflict` is a clause for rows that are there."""
    for chunk in chunks(rows):
        connection.execute(_insert(into, len(chunk), len(chunk[0]), conflict), list(chain.from_iterable(chunk)))


@cache
def _insert(into: str, rows: int, columns: int, conflict: str) -> str:
    values = ",".join([f"({marks(columns)})"] * rows)
    return f"INSERT OR FAIL INTO {into} VALUES {values} {conflict}"  # noqa: S608 - names of ours and question marks
