"""Rules and ways of sharing that a user brings along, and the number of receivers."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import eah
from eah.method import Choice, Columns
from tests.eah import tiny
from tests.eah.tiny import SPAN, TARGET, logits

THRESHOLD = 0.05


def most_attention(columns: Columns, image: torch.Tensor) -> Choice:
    """Choose the head with most attention to the image."""
    received = (columns.means * image[:, None]).sum(-1)
    return Choice(received.argmax(-1), (received * 100).long())


def test_a_rule_of_ones_own_chooses() -> None:
    model, prompt = tiny.tiny_llava("eager"), tiny.image_prompt(2)
    with torch.no_grad():
        maps = model(**prompt, output_attentions=True).attentions[TARGET]
    received = [
        [sum(head[y + 1 :, y].mean().item() for y in range(*SPAN)) for head in row] for row in maps
    ]

    with eah.enabled(model, eah.EAHConfig(rule=most_attention)) as handle:
        inside = logits(model, prompt)
        report = handle.report()[0]

    assert report.head == tuple(row.index(max(row)) for row in received)
    for row, head in enumerate(report.head):
        with eah.enabled(model, eah.EAHConfig(head=head)):
            torch.testing.assert_close(logits(model, prompt)[row], inside[row])


@pytest.mark.parametrize(
    ("found", "message"),
    [
        (lambda c, i: None, r"shapes \[None, None\]"),
        (lambda c, i: Choice(c.means[:, :1, 0], c.means[..., 0]), r"shapes \[\(1, 1\), \(1, 4\)\]"),
        (lambda c, i: Choice(torch.tensor([4]), c.means[..., 0]), r"chose heads \[4\]"),
        (lambda c, i: Choice(torch.tensor([-2]), c.means[..., 0]), r"chose heads \[-2\]"),
    ],
)
def test_what_a_rule_must_not_return_is_refused(found: Any, message: str) -> None:
    model = tiny.tiny_llava()

    with (
        eah.enabled(model, eah.EAHConfig(rule=found)),
        pytest.raises(eah.EAHConfigError, match=message),
    ):
        logits(model, tiny.image_prompt())


def own(model: Any, prompt: dict[str, torch.Tensor], config: eah.EAHConfig) -> torch.Tensor:
    """Return the target layer's attention output before its projection, (B, Q, H, D)."""
    found = []
    hook = tiny.attention(model).o_proj.register_forward_pre_hook(
        lambda _, args: found.append(args[0].unflatten(-1, (4, -1)))
    )
    with eah.enabled(model, config) if config else torch.no_grad():
        logits(model, prompt)
    hook.remove()
    return found[0]


@pytest.mark.parametrize("kernel", tiny.KERNELS)
def test_soft_sharing_and_sharing_per_token(kernel: str) -> None:
    model, prompt = tiny.tiny_llava(kernel), tiny.image_prompt()
    config = eah.EAHConfig(threshold=THRESHOLD)
    plain = own(model, prompt, None)
    shared = own(model, prompt, config)

    def half(query: Any, key: Any, value: Any, choice: Choice, attend: Any) -> torch.Tensor:
        both = attend(*eah.method.share_head(query, key, choice.head), value)
        return 0.5 * both + 0.5 * attend(query, key, value)

    def last_rows(query: Any, key: Any, value: Any, choice: Choice, attend: Any) -> torch.Tensor:
        both = attend(*eah.method.share_head(query, key, choice.head), value)
        is_last = torch.arange(query.shape[2]) >= 20
        return torch.where(is_last[None, :, None, None], both, attend(query, key, value))

    for apply, expected in (
        (half, 0.5 * shared + 0.5 * plain),
        (last_rows, torch.cat([plain[:, :20], shared[:, 20:]], 1)),
    ):
        found = own(model, prompt, eah.EAHConfig(threshold=THRESHOLD, apply=apply))
        torch.testing.assert_close(found, expected)
    assert not torch.allclose(shared, plain, atol=1e-2)


def test_decode_steps_and_text_are_no_matter_of_apply() -> None:
    model, text = tiny.tiny_llava(), tiny.text_prompt()
    calls: list[int] = []

    def counted(query: Any, key: Any, value: Any, choice: Choice, attend: Any) -> torch.Tensor:
        calls.append(query.shape[2])
        return eah.method.share_map(query, key, value, choice, attend)

    with eah.enabled(model, eah.EAHConfig(apply=counted)):
        logits(model, text)
        assert calls == []
        tiny.tokens(model, tiny.image_prompt())

    assert calls == [24]


def test_an_output_of_another_shape_is_refused() -> None:
    model = tiny.tiny_llava()

    with (
        eah.enabled(model, eah.EAHConfig(apply=lambda query, *_: query)),
        pytest.raises(eah.EAHConfigError, match=r"apply returned \(1, 4, 24, 8\)"),
    ):
        logits(model, tiny.image_prompt())


@pytest.mark.parametrize("kernel", tiny.KERNELS)
@pytest.mark.parametrize("receivers", [1, 2, 3, 4])
def test_only_the_heads_with_fewest_sinks_receive_the_map(kernel: str, receivers: int) -> None:
    model, prompt = tiny.tiny_llava(kernel), tiny.image_prompt(2)
    plain = own(model, prompt, None)
    shared = own(model, prompt, eah.EAHConfig(threshold=THRESHOLD))

    config = eah.EAHConfig(threshold=THRESHOLD, receivers=receivers)
    found = own(model, prompt, config)
    with eah.enabled(model, config) as handle:
        logits(model, prompt)
    counts = handle.report()[0].counts

    for b in range(2):
        order = sorted(range(4), key=lambda h: (counts[b][h], h))
        for h in range(4):
            wanted = shared if h in order[:receivers] else plain
            torch.testing.assert_close(found[b, :, h], wanted[b, :, h])


def test_more_receivers_than_heads_are_refused() -> None:
    model = tiny.tiny_llava()

    with pytest.raises(eah.EAHConfigError, match="receivers=5 but layer 1 has 4 heads"):
        eah.enable(model, eah.EAHConfig(receivers=5))
