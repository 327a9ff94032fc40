"""What lets one file stand in the place of transformers' models/llama/modeling_llama.py.

The original stands beside it as modeling_llama_original.py and is what everybody gets; its model
class is patched in place. `modeling_llama_eah.py` is built from these files and those that they
import, see `eah.build`. Read `replace.py` first.

Axes: B batch, H query heads, Q queries, K keys, D head size.
"""
