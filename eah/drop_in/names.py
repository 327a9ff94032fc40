"""Names that the drop-in file and `eah.swap` share. Needs the standard library only."""

from __future__ import annotations

from typing import Final

VERSION: Final = "0.2.0"
ORIGINAL_SUFFIX: Final = "_original"

# Since 4.48, transformers searches the text of a folder's files for the names that they define. If
# two files define a name, it takes the file whose group of requirements comes later, or that the
# file system lists later. The original's names are in the group "torch". Ours are in a later group,
# in a form that the search understands, so that transformers never takes the original.
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
