"""What the papers' rules make of a toy Llama: plain loops, one head and one row at a time, float64.

Written from the formulas, with full attention maps and nothing of our code. A prompt and the
answer behind it run in one pass without padding and without a cache.

Axes: T tokens of a prompt and its answer, H heads, D head size, E width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from models.decoding.adhh import Adhh
from models.decoding.base import DecodingMethod
from models.decoding.hgai import Hgai
from models.decoding.pai import Pai
from models.decoding.spin import Spin
from models.decoding.vaf import Vaf
from models.decoding.var import Var

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass
class Text:
    """One prompt with its answer.

    Attributes:
        embeds: Of all tokens, shape (T, E).
        prompt: Tokens of the prompt; those behind are the answer's.
        image: Places of the image tokens; empty for none.
    """

    embeds: Array
    prompt: int
    image: list[int]

    @property
    def begin(self) -> int:
        """Place of the first image token."""
        return self.image[0]

    @property
    def end(self) -> int:
        """Place behind the last image token."""
        return self.image[-1] + 1


@dataclass
class Maps:
    """One layer of one text.

    Attributes:
        text: The prompt.
        inputs: What goes into the layer, (T, E).
        scores: q k / sqrt(D), (H, T, T).
        seen: True where a row sees a key, (T, T).
        value: Of each query head, (H, T, D).
    """

    text: Text
    inputs: Array
    scores: Array
    seen: Array
    value: Array

    def weights(self, scores: Array, row: int) -> Array:
        """Return the softmax of one row's scores over the keys that it sees, (T,)."""
        found = np.zeros(len(scores))
        keys = np.flatnonzero(self.seen[row])
        powers = np.exp(scores[keys] - scores[keys].max())
        found[keys] = powers / powers.sum()
        return found


@dataclass
class Oracle:
    """A toy Llama's weights, and a method in some of its layers.

    Attributes:
        model: The toy.
        method: None for none.
        sinks: VAR's, by layer: places that are sinks. Filled by the first text; kept for later
            ones, which the released form then goes by.
    """

    model: Any
    method: DecodingMethod | None = None
    sinks: dict[int, list[int]] = field(default_factory=dict)

    def states(self, texts: Sequence[Text]) -> list[list[Array]]:
        """Return the hidden states of each text: embeddings, and what each layer leaves, (T, E)."""
        weights = {n: p.detach().double().numpy() for n, p in self.model.named_parameters()}
        config = self.model.config
        is_first, found = not self.sinks, [[text.embeds] for text in texts]
        for layer in range(config.num_hidden_layers):
            mine = {
                name.split(".", 3)[3].removesuffix(".weight"): weight
                for name, weight in weights.items()
                if name.startswith(f"model.layers.{layer}.")
            }
            maps = [self._maps(layer, mine, t, s[-1]) for t, s in zip(texts, found, strict=True)]
            if is_first and isinstance(self.method, Var):
                self.sinks[layer] = find_sinks(self.method, maps[0])
            outputs = self._attend(layer, maps, is_first)
            for states, output in zip(found, outputs, strict=True):
                x = states[-1] + output @ mine["self_attn.o_proj"].T
                hidden = norm(x, mine["post_attention_layernorm"], config.rms_norm_eps)
                gate = hidden @ mine["mlp.gate_proj"].T
                up = hidden @ mine["mlp.up_proj"].T
                states.append(x + (gate / (1 + np.exp(-gate)) * up) @ mine["mlp.down_proj"].T)
        return found

    def head(self, states: Array) -> Array:
        """Return the logits of hidden states, (..., E) -> (..., V)."""
        scale = self.model.model.norm.weight.detach().double().numpy()
        output = self.model.lm_head.weight.detach().double().numpy()
        return np.asarray(norm(states, scale, self.model.config.rms_norm_eps) @ output.T)

    def logits(self, texts: Sequence[Text]) -> list[Array]:
        """Return the logits of each text, (T, V)."""
        return [self.head(states[-1]) for states in self.states(texts)]

    def _maps(self, layer: int, mine: dict[str, Array], text: Text, x: Array) -> Maps:
        config = self.model.config
        heads, kv_heads, size = (
            config.num_attention_heads,
            config.num_key_value_heads,
            config.hidden_size // config.num_attention_heads,
        )
        hidden = norm(x, mine["input_layernorm"], config.rms_norm_eps)
        query, key, value = (
            (hidden @ mine[f"self_attn.{part}_proj"].T).reshape(len(x), -1, size) for part in "qkv"
        )
        query, key = rotated(query), rotated(key)
        of = [head // (heads // kv_heads) for head in range(heads)]  # the key head of each head
        scores = np.stack([query[:, h] @ key[:, of[h]].T / np.sqrt(size) for h in range(heads)])
        seen = np.tril(np.ones((len(x), len(x)), dtype=bool))
        if layer in held(self.method, config) and not getattr(self.method, "causal", True):
            seen[: text.prompt, : text.prompt] = True
        return Maps(text, x, scores, seen, np.stack([value[:, of[h]] for h in range(heads)]))

    def _attend(self, layer: int, maps: Sequence[Maps], is_first: bool) -> list[Array]:
        """Return the outputs of all heads side by side, for each text, (T, H * D)."""
        method, outputs = self.method, []
        for one in maps:
            plain = [
                [one.weights(one.scores[h, i], i) @ one.value[h] for h in range(len(one.scores))]
                for i in range(len(one.seen))
            ]
            if layer in held(method, self.model.config) and one.text.image:
                sinks = self.sinks.get(layer, [])
                if isinstance(method, Var) and not method.released:
                    sinks = find_sinks(method, one)
                for i in range(len(plain)):
                    plain[i] = changed_row(method, one, i, plain[i], layer, maps, sinks, is_first)
            outputs.append(np.array(plain).reshape(len(plain), -1))
        return outputs


def held(method: DecodingMethod | None, config: Any) -> list[int]:
    """Return the layers that a method changes."""
    every = range(config.num_hidden_layers)
    if isinstance(method, (Hgai, Vaf)):
        return list(method.layers)
    if isinstance(method, Spin):
        return list(every) if method.layers == "all" else [int(at) for at in method.layers]
    if isinstance(method, (Var, Pai)):
        return [layer for layer in every if layer >= method.start_layer]
    if isinstance(method, Adhh):
        return [layer for layer, _ in listed(method)]
    return []


def listed(method: Adhh) -> list[tuple[int, int]]:
    """Return layer and head of AD-HH's heads."""
    pairs = [one.split("h") for one in method.heads.split("+")]
    return [(int(layer), int(head)) for layer, head in pairs]


def changed_row(
    method: Any,
    maps: Maps,
    i: int,
    plain: list[Array],
    layer: int,
    batch: Sequence[Maps],
    sinks: list[int],
    is_first: bool,
) -> list[Array]:
    """Return the output of each head in one row of one text, as a method has it."""
    text, heads, value = maps.text, range(len(maps.scores)), maps.value
    is_last, is_behind = i >= text.prompt - 1, i >= text.end
    rows = maps.scores[:, i]  # (H, T)

    if isinstance(method, (Hgai, Pai)) and is_last:
        sizes = np.abs(rows)
        if isinstance(method, Hgai):
            sizes = np.stack([sizes.mean(0)] * len(rows))
        edited = rows.copy()
        edited[:, text.image] += method.alpha * sizes[:, text.image]
        return [maps.weights(edited[h], i) @ value[h] for h in heads]

    if isinstance(method, Vaf) and is_behind:
        edited = rows.copy()
        for j in range(i + 1):
            factor = method.enhance if j in text.image else 1.0
            factor = method.suppress if j < text.begin else factor
            grown = edited[:, j] if method.signed else np.abs(edited[:, j])
            edited[:, j] = edited[:, j] + (factor - 1) * grown
        return [maps.weights(edited[h], i) @ value[h] for h in heads]

    if isinstance(method, Spin) and (is_last if method.released else is_behind):
        looks = [sum(rows[h, j] for j in text.image) for h in heads]
        ranked = sorted(heads, key=lambda h: -looks[h])
        kept = ranked[: int(method.kept * len(rows))]
        return [plain[h] if h in kept else method.scale * plain[h] for h in heads]

    if isinstance(method, Adhh) and is_last:
        found = list(plain)
        for at, h in listed(method):
            weights = maps.weights(rows[h], i)
            mass = weights[text.end :].sum()
            if method.batch_sum:
                step = i - text.prompt
                mass = sum(
                    one.weights(one.scores[h, one.text.prompt + step], one.text.prompt + step)[
                        one.text.end :
                    ].sum()
                    for one in batch
                )
            if at == layer and mass >= method.threshold:
                weights[text.end :] = 0
                found[h] = weights @ value[h]
        return found

    if isinstance(method, Var):
        visual = [j for j in sinks if j in text.image]
        others = [j for j in text.image if j not in sinks]
        if not visual or not (is_behind or (method.released and not is_first)):
            return plain
        found = []
        for h in heads:
            weights = maps.weights(rows[h], i)
            on_image = sum(weights[j] for j in text.image)
            portion = sum(weights[j] for j in visual) / sum(weights[j] + 1e-6 for j in text.image)
            free = sum(weights[j] for j in others)
            if portion <= method.rho and on_image >= method.summ and free > 0:
                known = [j for j in sinks if j < len(weights)]
                budget = (1 - method.p) * sum(weights[j] for j in known)
                weights[others] += budget * weights[others] / free
                weights[known] *= method.p
            found.append(weights @ value[h])
        return found

    return plain


def find_sinks(method: Var, maps: Maps) -> list[int]:
    """Return the places of a prompt's sinks in a layer."""
    found = []
    for place in range(maps.text.prompt):
        x = maps.inputs[place]
        unit = x / np.sqrt((x**2).mean() + 1e-6)
        if max(abs(unit[dim]) for dim in method.sink_dims) > method.tau:
            found.append(place)
    return found


def norm(x: Array, weight: Array, eps: float) -> Array:
    """Return the RMS norm of x along its last axis."""
    return np.asarray(x / np.sqrt((x**2).mean(-1, keepdims=True) + eps) * weight)


def rotated(x: Array, theta: float = 10000.0) -> Array:
    """Return queries or keys turned by their places, (T, H, D)."""
    size = x.shape[-1]
    angles = np.arange(len(x))[:, None] * theta ** (-np.arange(0, size, 2) / size)
    angles = np.concatenate([angles, angles], -1)[:, None]
    turned = np.concatenate([-x[..., size // 2 :], x[..., : size // 2]], -1)
    return np.asarray(x * np.cos(angles) + turned * np.sin(angles))
