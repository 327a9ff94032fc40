"""Names that the drop-in file and `eah.swap` share. Needs the standard library alone."""

from __future__ import annotations

from typing import Final

VERSION: Final = "0.2.0"
ORIGINAL_SUFFIX: Final = "_original"

# transformers from 4.48 on searches the text of a folder's files for what they define, and of two
# files that define a name it takes the one whose group of requirements comes later, or that the
# file system happens to list later. So that it never takes the original, whose names are in the
# group "torch", ours stand in a group that follows it, in a form that the search understands.
LAZY_EXPORTS: Final[str] = """
@export(backends=("torch",))
class SharingAttention(
@export(backends=("torch", "tokenizers"))
class LlamaForCausalLM(
@export(backends=("torch", "tokenizers"))
class LlamaForQuestionAnswering(
@export(backends=("torch", "tokenizers"))
class LlamaForSequenceClassification(
@export(backends=("torch", "tokenizers"))
class LlamaForTokenClassification(
@export(backends=("torch", "tokenizers"))
class LlamaModel(
@export(backends=("torch", "tokenizers"))
class LlamaPreTrainedModel(
@requires(backends=("torch",))
class SharingAttention(
@requires(backends=("torch", "tokenizers"))
class LlamaForCausalLM(
@requires(backends=("torch", "tokenizers"))
class LlamaForQuestionAnswering(
@requires(backends=("torch", "tokenizers"))
class LlamaForSequenceClassification(
@requires(backends=("torch", "tokenizers"))
class LlamaForTokenClassification(
@requires(backends=("torch", "tokenizers"))
class LlamaModel(
@requires(backends=("torch", "tokenizers"))
class LlamaPreTrainedModel(
"""
