"""Values that `with` blocks set for the context (so, the thread) that enters them.

`ContextVar.reset` requires that blocks are left in reverse order and in the context that entered
them. Generators that are closed late, or by another thread, violate this. Here, leaving a block in
any order and any thread ends that block and no other.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Generic, TypeVar

Value = TypeVar("Value")


@dataclass(eq=False)
class _Block(Generic[Value]):
    value: Value
    is_open: bool = True


class ScopedValues(Generic[Value]):
    """The values of the open blocks."""

    def __init__(self, name: str) -> None:
        """Start without values; the name is for debuggers."""
        self._blocks: ContextVar[tuple[_Block[Value], ...]] = ContextVar(name, default=())

    @contextmanager
    def scope(self, value: Value) -> Iterator[None]:
        """Set a value in a `with` block of this context."""
        block = _Block(value)
        self._blocks.set((*self._open(), block))
        try:
            yield
        finally:
            block.is_open = False
            self._blocks.set(self._open())

    def values(self) -> list[Value]:
        """Return the values of the open blocks, the innermost last."""
        return [block.value for block in self._open()]

    def _open(self) -> tuple[_Block[Value], ...]:
        return tuple(block for block in self._blocks.get() if block.is_open)
