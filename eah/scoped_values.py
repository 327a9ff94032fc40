"""What `with` blocks say, for the context (so, for the thread) that enters them.

`ContextVar.reset` wants blocks to be left in the order and in the context in which they were
entered. Generators that are closed late, or by another thread, do neither: here a block that was
left is over wherever that happened, and no other one is.
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
    """The values of the blocks that are open."""

    def __init__(self, name: str) -> None:
        """Start without any; the name is for debuggers."""
        self._blocks: ContextVar[tuple[_Block[Value], ...]] = ContextVar(name, default=())

    @contextmanager
    def scope(self, value: Value) -> Iterator[None]:
        """Say a value in a `with` block of this context."""
        block = _Block(value)
        self._blocks.set((*self._open(), block))
        try:
            yield
        finally:
            block.is_open = False
            self._blocks.set(self._open())

    def values(self) -> list[Value]:
        """Return what the open blocks say, the innermost last."""
        return [block.value for block in self._open()]

    def _open(self) -> tuple[_Block[Value], ...]:
        return tuple(block for block in self._blocks.get() if block.is_open)
