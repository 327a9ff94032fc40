"""Plain reference computations of every part, from tensors under their original names.

Axes: B batch, S positions, H heads, D head size, Q queries of the Q-Former, T tokens of its text.
"""

from __future__ import annotations

import math

import torch
from torch.nn import functional as F  # as everyone calls it

Tensors = dict[str, torch.Tensor]


def linear(tensors: Tensors, name: str, x: torch.Tensor) -> torch.Tensor:
    """Return x W^T + b."""
    return x @ tensors[f"{name}.weight"].T + tensors[f"{name}.bias"]


def norm(tensors: Tensors, name: str, x: torch.Tensor, eps: float) -> torch.Tensor:
    """Return the layer norm of x along its last axis."""
    centred = x - x.mean(-1, keepdim=True)
    variance = centred.square().mean(-1, keepdim=True)
    return centred / (variance + eps).sqrt() * tensors[f"{name}.weight"] + tensors[f"{name}.bias"]


def gelu(x: torch.Tensor) -> torch.Tensor:
    """Return the exact GELU."""
    return x * 0.5 * (1 + torch.erf(x / math.sqrt(2)))


def attend(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    heads: int,
    hidden: torch.Tensor | None = None,
) -> torch.Tensor:
    """Return softmax attention, shape (B, S, width), head by head; not to what is `hidden`."""
    size = query.shape[-1] // heads
    outputs = []
    for h in range(heads):
        part = slice(h * size, (h + 1) * size)
        scores = query[..., part] @ key[..., part].transpose(1, 2) / math.sqrt(size)
        if hidden is not None:
            scores = scores.masked_fill(hidden, -1e9)
        outputs.append(scores.softmax(-1) @ value[..., part])
    return torch.cat(outputs, dim=-1)


def patches(weight: torch.Tensor, pixels: torch.Tensor) -> torch.Tensor:
    """Return a patch embedding without bias, row by row of patches, shape (B, S, width)."""
    side = weight.shape[-1]
    rows = []
    for top in range(0, pixels.shape[2], side):
        for left in range(0, pixels.shape[3], side):
            patch = pixels[:, :, top : top + side, left : left + side]
            rows.append(patch.flatten(1) @ weight.flatten(1).T)
    return torch.stack(rows, dim=1)


def eva(tensors: Tensors, pixels: torch.Tensor, *, heads: int, blocks: int) -> torch.Tensor:
    """Return EVA ViT-g's positions, CLS first, without a last norm; query and value have a bias."""
    x = patches(tensors["patch_embed.proj.weight"], pixels) + tensors["patch_embed.proj.bias"]
    x = torch.cat([tensors["cls_token"].expand(len(x), -1, -1), x], dim=1) + tensors["pos_embed"]
    for i in range(blocks):
        block = f"blocks.{i}"
        y = norm(tensors, f"{block}.norm1", x, 1e-6)
        q, k, v = (y @ part.T for part in tensors[f"{block}.attn.qkv.weight"].chunk(3))
        q, v = q + tensors[f"{block}.attn.q_bias"], v + tensors[f"{block}.attn.v_bias"]
        x = x + linear(tensors, f"{block}.attn.proj", attend(q, k, v, heads))
        y = norm(tensors, f"{block}.norm2", x, 1e-6)
        x = x + linear(tensors, f"{block}.mlp.fc2", gelu(linear(tensors, f"{block}.mlp.fc1", y)))
    return x


def clip(tensors: Tensors, pixels: torch.Tensor, *, heads: int, layers: int) -> torch.Tensor:
    """Return CLIP's patches after all layers but the last, without CLS and without a last norm."""
    embeddings = "vision_model.embeddings"
    x = patches(tensors[f"{embeddings}.patch_embedding.weight"], pixels)
    x = torch.cat([tensors[f"{embeddings}.class_embedding"].expand(len(x), 1, -1), x], dim=1)
    x = x + tensors[f"{embeddings}.position_embedding.weight"]
    x = norm(tensors, "vision_model.pre_layrnorm", x, 1e-5)
    for i in range(layers - 1):
        layer = f"vision_model.encoder.layers.{i}"
        y = norm(tensors, f"{layer}.layer_norm1", x, 1e-5)
        q, k, v = (linear(tensors, f"{layer}.self_attn.{name}_proj", y) for name in "qkv")
        x = x + linear(tensors, f"{layer}.self_attn.out_proj", attend(q, k, v, heads))
        y = linear(tensors, f"{layer}.mlp.fc1", norm(tensors, f"{layer}.layer_norm2", x, 1e-5))
        x = x + linear(tensors, f"{layer}.mlp.fc2", y * torch.sigmoid(1.702 * y))
    return x[:, 1:]


def _bert_attention(
    tensors: Tensors,
    name: str,
    x: torch.Tensor,
    seen: torch.Tensor,
    heads: int,
    hidden: torch.Tensor | None = None,
) -> torch.Tensor:
    """Return BERT's attention with its residual and norm, eps 1e-12."""
    query = linear(tensors, f"{name}.self.query", x)
    key = linear(tensors, f"{name}.self.key", seen)
    value = linear(tensors, f"{name}.self.value", seen)
    y = linear(tensors, f"{name}.output.dense", attend(query, key, value, heads, hidden))
    return norm(tensors, f"{name}.output.LayerNorm", y + x, 1e-12)


def _bert_feed_forward(tensors: Tensors, layer: str, suffix: str, x: torch.Tensor) -> torch.Tensor:
    y = gelu(linear(tensors, f"{layer}.intermediate{suffix}.dense", x))
    y = linear(tensors, f"{layer}.output{suffix}.dense", y)
    return norm(tensors, f"{layer}.output{suffix}.LayerNorm", y + x, 1e-12)


def qformer(
    tensors: Tensors,
    states: torch.Tensor,
    *,
    heads: int,
    layers: int,
    text: torch.Tensor | None = None,
    text_mask: torch.Tensor | None = None,
) -> torch.Tensor:
    """Return the queries' output, shape (B, Q, width).

    Args:
        tensors: `query_tokens` and `Qformer.bert.*`.
        states: Positions of the tower after ln_vision, shape (B, S, C).
        heads: Attention heads.
        layers: Layers; each second one, from the first, looks at `states`.
        text: Ids of the question, shape (B, T); None for the Q-Former without text.
        text_mask: 1 where there is a token, shape (B, T).
    """
    bert = "Qformer.bert"
    x = tensors["query_tokens"].expand(len(states), -1, -1)
    queries, hidden = x.shape[1], None
    if text is not None and text_mask is not None:
        words = tensors[f"{bert}.embeddings.word_embeddings.weight"][text]
        words = words + tensors[f"{bert}.embeddings.position_embeddings.weight"][: text.shape[1]]
        x = torch.cat([x, words], dim=1)
        seen = torch.cat([text_mask.new_ones(len(states), queries), text_mask], dim=1)
        hidden = (seen == 0)[:, None, :]
    x = norm(tensors, f"{bert}.embeddings.LayerNorm", x, 1e-12)
    for i in range(layers):
        layer = f"{bert}.encoder.layer.{i}"
        x = _bert_attention(tensors, f"{layer}.attention", x, x, heads, hidden)
        first, rest = x[:, :queries], x[:, queries:]
        if i % 2 == 0:
            first = _bert_attention(tensors, f"{layer}.crossattention", first, states, heads)
        first = _bert_feed_forward(tensors, layer, "_query", first)
        if rest.shape[1]:
            rest = _bert_feed_forward(tensors, layer, "", rest)
        x = torch.cat([first, rest], dim=1)
    return x[:, :queries]


def _rms_norm(weight: torch.Tensor, x: torch.Tensor, eps: float) -> torch.Tensor:
    return x / (x.square().mean(-1, keepdim=True) + eps).sqrt() * weight


def _rotated(x: torch.Tensor, heads: int) -> torch.Tensor:
    """Return rotary positions applied: entry j of a head's half turns with entry j of the other."""
    batch, length, width = x.shape
    half = width // heads // 2
    angles = torch.arange(length)[:, None] / 10000 ** (torch.arange(half) / half)  # (S, D / 2)
    cos, sin = angles.cos()[None, :, None], angles.sin()[None, :, None]
    first, second = x.view(batch, length, heads, 2, half).unbind(3)
    turned = torch.stack([first * cos - second * sin, second * cos + first * sin], dim=3)
    return turned.reshape(batch, length, width)


def llama(
    tensors: Tensors, embeds: torch.Tensor, *, heads: int, layers: int, eps: float
) -> torch.Tensor:
    """Return logits, shape (B, S, vocabulary), without a cache and without padding."""
    x = embeds
    length = x.shape[1]
    future = torch.ones(length, length, dtype=torch.bool).triu(1)
    for i in range(layers):
        layer = f"model.layers.{i}"
        y = _rms_norm(tensors[f"{layer}.input_layernorm.weight"], x, eps)
        q, k, v = (y @ tensors[f"{layer}.self_attn.{name}_proj.weight"].T for name in "qkv")
        y = attend(_rotated(q, heads), _rotated(k, heads), v, heads, future)
        x = x + y @ tensors[f"{layer}.self_attn.o_proj.weight"].T
        y = _rms_norm(tensors[f"{layer}.post_attention_layernorm.weight"], x, eps)
        gate = F.silu(y @ tensors[f"{layer}.mlp.gate_proj.weight"].T)
        y = gate * (y @ tensors[f"{layer}.mlp.up_proj.weight"].T)
        x = x + y @ tensors[f"{layer}.mlp.down_proj.weight"].T
    return _rms_norm(tensors["model.norm.weight"], x, eps) @ tensors["lm_head.weight"].T
