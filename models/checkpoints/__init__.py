"""The authors' original files, and how a folder in transformers' format is made of them."""
