"""torch.compile of models with EAH: the same outputs, and counting breaks no graph."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
import transformers
from packaging.version import Version

import eah
from eah.operators import image_sums
from eah.visibility import Visibility
from tests.eah import tiny
from tests.eah.tiny import CONFIG, SPAN, logits

# Of LlamaForCausalLM with one target layer: the hooks of two models, and the layer's look at the
# pass that they keep, where the frames around it break as well.
BREAKS = 9 if Version(transformers.__version__) >= Version("5") else 10


@pytest.fixture(autouse=True)
def forget_graphs() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.mark.parametrize("kernel", tiny.KERNELS)
def test_a_compiled_model_gives_the_same(kernel: str) -> None:
    model, prompt, text = tiny.tiny_llava(kernel), tiny.image_prompt(), tiny.text_prompt()
    plain = logits(model, text)

    with eah.enabled(model, CONFIG) as handle:
        expected, report = logits(model, prompt), handle.report()
        compiled = torch.compile(model, backend="eager")
        torch.testing.assert_close(logits(compiled, prompt), expected)
        assert handle.report() == report
        torch.testing.assert_close(logits(compiled, text), plain)
        assert "no image tokens" in str(handle.report()[0].skipped)


def sums(query: torch.Tensor, key: torch.Tensor, image: torch.Tensor) -> tuple[torch.Tensor, ...]:
    valid = torch.ones(1, query.shape[2], dtype=torch.bool)
    mask = torch.ones(1, 1, query.shape[2], key.shape[2], dtype=torch.bool).tril()
    found = image_sums(query * 2, key, Visibility(mask=mask, valid=valid), scaling=1.0, image=image)
    return found.attention * 2, found.uniform, found.rows


def test_counting_is_one_opaque_operator_in_a_whole_graph() -> None:
    query, key = torch.randn(1, 4, 24, 8), torch.randn(1, 2, 24, 8)
    image = torch.zeros(1, 24, dtype=torch.bool)
    image[:, slice(*SPAN)] = True

    compiled = torch.compile(sums, backend="aot_eager", fullgraph=True)

    for found, expected in zip(compiled(query, key, image), sums(query, key, image), strict=True):
        torch.testing.assert_close(found, expected)


def test_the_operator_describes_its_outputs() -> None:
    query, key = torch.randn(1, 4, 24, 8), torch.randn(1, 2, 24, 8)
    image = torch.ones(1, 24, dtype=torch.bool)

    torch.library.opcheck(
        torch.ops.eah.image_sums.default,
        (query, key, image, None, None, 0, None, 1.0, None),
        test_utils=("test_schema", "test_faketensor"),
    )


def test_the_graph_breaks_are_those_that_the_docs_state() -> None:
    model, ids = tiny.tiny_llama(), tiny.text_prompt()["input_ids"]

    with torch.no_grad():
        plain = torch._dynamo.explain(model)(ids).graph_break_count
        torch._dynamo.reset()
        with eah.enabled(model, CONFIG), eah.image_tokens(model, SPAN):
            inside = torch._dynamo.explain(model)(ids).graph_break_count

    assert plain == 0
    assert inside <= BREAKS


@pytest.mark.gpu  # on a CPU, too, where it takes 20 seconds
def test_inductor_gives_the_same_at_an_image_prefill() -> None:
    model, ids = tiny.tiny_llama().cuda(), tiny.text_prompt()["input_ids"].cuda()

    with eah.enabled(model, CONFIG) as handle, eah.image_tokens(model, SPAN), torch.no_grad():
        expected, report = model(ids).logits, handle.report()
        found = torch.compile(model, backend="inductor")(ids).logits
        assert handle.report() == report

    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
