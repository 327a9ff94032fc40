"""Find image tokens among embeddings: those that equal no row of the embedding table.

Embeddings of text tokens are exact copies of rows of the table; those of a vision tower are not. So
if you pass embeddings, EAH can locate the image tokens. Soft prompts look like image tokens, too.

Shared by the library and the drop-in file. Needs torch only.

Axes: B batch, S tokens, V rows of the table, W width, C hashed columns.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import torch
from torch import nn

HASHED: Final = 16  # columns; rows with equal hashes are compared in full
BLOCK: Final = 4096  # rows of the table that are read at a time
WORDS: Final = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}  # by bytes
FACTOR: Final = 6364136223846793005  # odd, so multiplying by its powers loses no bits


@dataclass(frozen=True)
class Table:
    """Hashes of an embedding table.

    Attributes:
        identity: Its parameters and the dtype that it was read in.
        width: Length of its rows, W.
        columns: The hashed columns of its weight, (V, C); None for a weight that is offloaded.
        hashes: Hashes of its rows in ascending order, (V,) int64.
        rows: The rows with these hashes, (V,) int64.
    """

    identity: Any
    width: int
    columns: torch.Tensor | None
    hashes: torch.Tensor
    rows: torch.Tensor


class ImageRows(NamedTuple):
    """Image tokens among the embeddings of a pass.

    Attributes:
        image: True at image tokens, shape (B, S) bool.
        has_text: Whether any embedding of a prompt is a row of the table, shape (B,) bool.
    """

    image: torch.Tensor
    has_text: torch.Tensor


def image_rows(known: torch.Tensor, embeds: torch.Tensor, valid: torch.Tensor | None) -> ImageRows:
    """Return the tokens that equal no row of the table, without padding and zeros.

    Args:
        known: Rows of the table, shape (B, S) bool.
        embeds: Shape (B, S, W).
        valid: True at tokens, shape (B or 1, S); None if nothing is padded.
    """
    tokens = (embeds.amax(-1) != 0) | (embeds.amin(-1) != 0)
    if valid is not None:
        tokens = tokens & valid.to(tokens.device)
    return ImageRows(tokens & ~known, (tokens & known).any(-1))


class EmbeddingRows:
    """Finds which embeddings are rows of a model's embedding table.

    Hashes of a plain table are cached until it changes in any way: a hash only proposes a row,
    which is then compared in full, and the hashed columns are compared with the weight's each
    time. A scaled or adapted table is hashed for each prompt.
    """

    def __init__(self) -> None:
        """Start without a table."""
        self._tables: dict[torch.device, Table] = {}  # replicas of a model share this object

    def __reduce__(self) -> tuple[Any, ...]:
        """Copies and pickles hash the table again."""
        return EmbeddingRows, ()

    @torch.no_grad()
    def equal(self, embed: Any, ids: tuple[int, ...], embeds: torch.Tensor) -> torch.Tensor:
        """Return which embeddings are those of given tokens, such as placeholders, (B, S) bool."""
        found = torch.zeros(embeds.shape[:2], dtype=torch.bool, device=embeds.device)
        for token in ids:
            if not 0 <= token < embed.weight.shape[0]:
                continue  # a placeholder id that is used in `input_ids` only
            row = embed.forward(torch.tensor([token], device=embeds.device))  # (1, W)
            found |= _equal(row.to(embeds.device), embeds.detach())
        return found

    @torch.no_grad()
    def known(self, embed: Any, embeds: torch.Tensor) -> torch.Tensor | None:
        """Return which embeddings are rows of the table.

        Args:
            embed: The model's embedding module; its output is compared, with any scaling or
                adapters.
            embeds: Shape (B, S, W).
        Returns:
            Shape (B, S) bool; None if the two can't be compared.
        """
        weight = getattr(embed, "weight", None)
        if not isinstance(weight, torch.Tensor) or weight.dim() != 2:
            return None
        if getattr(embed, "max_norm", None) is not None:
            return None  # a lookup would change its rows
        device = embeds.device if weight.is_meta else weight.device
        wanted = embeds.detach().to(device)
        table = self._read(embed, weight, wanted.dtype, device)
        if table is None or table.width != wanted.shape[-1]:
            return None
        hashes = _hashes(wanted[..., _columns(table.width, device)])  # (B, S, W) -> (B, S)
        place = torch.searchsorted(table.hashes, hashes).clamp(max=len(table.hashes) - 1)
        candidates = table.hashes[place] == hashes
        known = torch.zeros_like(candidates)
        known[candidates] = torch.cat(
            [
                _equal(embed.forward(rows), some)
                for rows, some in zip(  # noqa: B905  # Python 3.8
                    torch.split(table.rows[place[candidates]], BLOCK),
                    torch.split(wanted[candidates], BLOCK),
                )
            ]
        )
        for b, s in (candidates & ~known).nonzero().tolist():  # other rows with equal hashes
            rows = table.rows[table.hashes == hashes[b, s]]
            known[b, s] = any(
                bool(_equal(embed.forward(part), wanted[b, s]).any())
                for part in torch.split(rows, BLOCK)
            )
        return known.to(embeds.device)

    def _read(
        self, embed: Any, weight: torch.Tensor, dtype: torch.dtype, device: torch.device
    ) -> Table | None:
        """Return the table, cached if it is unchanged; None if it can't be compared."""
        identity = dtype, tuple((p.data_ptr(), _version(p)) for p in (weight, *embed.parameters()))
        columns = None
        if not weight.is_meta:
            columns = _bits(weight[:, _columns(weight.shape[1], device)])
        kept = self._tables.get(device)
        is_current = kept is not None and kept.identity == identity and _is_plain(embed)
        if kept is not None and is_current and _same(kept.columns, columns):
            return kept
        rows = torch.arange(weight.shape[0], device=device)
        hashes = torch.cat([_row_hashes(embed, part, dtype) for part in torch.split(rows, BLOCK)])
        for row in rows[
            : HASHED // 2
        ].tolist():  # the last bits of a matrix product depend on the batch
            if not torch.equal(_row_hashes(embed, rows[row : row + 1], dtype)[0], hashes[row]):
                return None
        hashes, order = hashes.sort()
        width = int(embed.forward(rows[:1]).shape[-1])
        self._tables[device] = Table(identity, width, columns, hashes, order)
        return self._tables[device]


def _is_plain(embed: Any) -> bool:
    """Return whether a module only looks up rows, so that its weight determines its output.

    accelerate replaces the `forward` of modules whose weights it moves, without changing values.
    """
    is_replaced = "forward" in vars(embed) and "_hf_hook" not in vars(embed)
    return type(embed).forward is nn.Embedding.forward and not is_replaced


def _columns(width: int, device: torch.device) -> torch.Tensor:
    """Return the columns that are hashed, spread over the width, (C,)."""
    count = min(HASHED, width)
    return torch.arange(count, device=device) * width // count


def _row_hashes(embed: Any, rows: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Return hashes of rows of the table as embeddings of a dtype, (rows,) int64."""
    embeds = embed.forward(rows).to(dtype)
    return _hashes(embeds[:, _columns(embeds.shape[-1], embeds.device)])


def _hashes(columns: torch.Tensor) -> torch.Tensor:
    """Return hashes of rows from their hashed columns, (..., C) -> (...) int64."""
    powers = [pow(FACTOR, power + 1, 2**64) for power in range(columns.shape[-1])]
    signed = [power - 2**64 if power >= 2**63 else power for power in powers]
    return (_bits(columns).long() * torch.tensor(signed, device=columns.device)).sum(-1)


def _bits(values: torch.Tensor) -> torch.Tensor:
    """Return the bits of numbers as integers: NaN equals itself, and 0 differs from -0."""
    return values.contiguous().view(WORDS[values.element_size()])


def _equal(rows: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """Return which rows equal those wanted bitwise, (..., W) -> (...) bool."""
    return (_bits(rows.to(wanted.dtype)) == _bits(wanted)).all(-1)


def _same(kept: torch.Tensor | None, columns: torch.Tensor | None) -> bool:
    if kept is None or columns is None:
        return kept is columns
    return torch.equal(kept, columns)


def _version(parameter: torch.Tensor) -> int | None:
    """Return how often a parameter was written; tensors of inference mode don't count it."""
    return None if parameter.is_inference() else parameter._version
