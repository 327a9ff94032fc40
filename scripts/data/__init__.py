"""Files that evaluations read, downloaded, converted or generated.

`download.sh` fetches COCO and POPE's questions, `convert_checkpoint.py` and `import_chair_cache.py`
convert what others published, and `make_lexicon.py` writes the table of CHAIR's inflected words.
"""
