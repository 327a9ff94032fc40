"""Source files of the drop-in file, which replaces transformers' models/llama/modeling_llama.py.

The original is next to it as modeling_llama_original.py. Importers get the original's module, whose
model class is patched. `eah.build` builds `modeling_llama_eah.py` from these files and those that
they import. Start with `replace.py`.

Axes: B batch, H query heads, Q queries, K keys, D head size.
"""
