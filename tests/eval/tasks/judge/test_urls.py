"""Addresses of endpoints: which can't be one, which carry a secret, and which only look odd."""

from __future__ import annotations

import random
import string

import pytest

from eval.errors import EvaluationError
from eval.tasks.judge.urls import check_url, describe_redirect, looks_secret

ALPHABET = string.ascii_letters + string.digits


@pytest.mark.parametrize(
    "url",
    [
        "https://api.openai.com/v1",
        "http://127.0.0.1:8000/v1/",
        "http://localhost:65535",
        "http://[::1]:8000/v1",
        "http://m\u00fcnchen.example/v1",
        "https://my-name.openai.azure.com/openai/deployments/gpt-4o-mini-2024-07-18/",
        "https://h/api/v3/",
        "https://api.cloudflare.com/client/v4/accounts/023e105f4ecef8ad9ca31a8372d0c353/ai/v1",
        "https://h/projects/2f1c4d0e-8c1b-4f1e-9a51-0d6a2b7d8c11/locations/us-central1/v1",
        "https://h/models/meta-llama/Llama-3.2-11B-Vision-Instruct/v1",
        "https://h/models/Mistral7BInstructV02Quantized/v1",
        "https://h/models/Qwen2VL7BInstructAWQ4bit/v1",
        "https://h/hf-inference-endpoint-2024-11-20/v1",
        "https://h/risk-assessment-2024/key-vault-proxy/token-counter-service-v2/v1",
    ],
)
def test_addresses_in_use_are_taken(url: str) -> None:
    check_url(url, "judge_base_url")


@pytest.mark.parametrize(
    "url",
    [
        "", "h:8000", "//h/v1", "http://", "http:///v1", "https://:80", "file:///etc/passwd",
        "ftp://h", "http://h:99999/v1", "http://h:abc/v1", "http://h:0/v1", "http://h:-1/v1",
        "http://h/v1\n", "\nhttp://h/v1", "http://h\t/v1", "http://h/ v1", " http://h/v1",
        "http://h/\x00", "http://h/\u2028", "http://h/\ud800", "http://[::1", "http://[v1.a]/",
        "http://[1.2.3.4]/", "http://a..b/", "http:\\\\h/v1", "http://h/{model}",
        "http://" + "a" * 64 + ".org", "http://h/" + "a" * 1000,
    ],
)  # fmt: skip
def test_what_is_no_address_is_one_sentence(url: str) -> None:
    with pytest.raises(
        EvaluationError, match="is not an address; it must be like http://127"
    ) as caught:
        check_url(url, "judge_base_url")

    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize(
    "url",
    [
        "http://user:{}@h/v1", "http://{}@h/v1", "https://h/v1?api-key={}", "https://h/v1#{}",
        "https://h/v1;key={}", "https://h/v1/;{}", "https://h/{}/v1", "https://h/v1/key={}/x",
        "https://h/Bearer%20{}/v1", "h/{}", "htp://user:{}@h", "user:{}@h:80/v1", "http://h /{}",
        "https://h:99999/{}", "http://[{}]/", "https://h?{}",
    ],
)  # fmt: skip
@pytest.mark.parametrize(
    "secret",
    ["sk-abcdefghijk12345", "%73k-abcdefghijk12345", "%2573k-abcdefghijk12345",
     "sk_live_abcdefghijk", "gsk_a1b2c3d4e5f6a7b8", "Zx81kQpL09aYtW3eRu7N", "AIzaSyD3x9Kq2Lm5Pv"],
)  # fmt: skip
def test_an_address_with_a_secret_is_refused_without_showing_it(url: str, secret: str) -> None:
    with pytest.raises(EvaluationError) as caught:
        check_url(url.format(secret), "judge_base_url")

    assert secret[-8:] not in str(caught.value)


def test_random_keys_are_found_mostly_and_hexadecimal_ids_never() -> None:
    draw = random.Random(0)
    keys = ["".join(draw.choices(ALPHABET, k=32)) for _ in range(2000)]
    ids = ["".join(draw.choices("0123456789abcdef", k=32)) for _ in range(2000)]

    assert sum(map(looks_secret, keys)) > 0.97 * len(keys)
    assert not any(map(looks_secret, ids))


@pytest.mark.parametrize(
    ("location", "there"),
    [
        ("https://user:pass@evil.example:99/x?key=secret#s", "https://evil.example:99"),
        ("//evil.example/v1", "http://evil.example"),
        ("https://h:8000/v1", "https://h:8000"),
        ("http://h:8001/v1", "http://h:8001"),
        ("/v2/secret", "another path of the same server"),
        ("", "nowhere"),
        ("http://[::1", "an invalid address"),
        ("http://x:99999", "an invalid address"),
        ("file:///etc/passwd", "nowhere"),
    ],
)
def test_where_a_redirect_leads_is_said_without_secrets(location: str, there: str) -> None:
    assert describe_redirect("http://h:8000/v1", location) == there
