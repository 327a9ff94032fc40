"""Convert the authors' original files to a folder in transformers' format."""
