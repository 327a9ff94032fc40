"""AMBER: captions and yes/no questions about the same 1,004 pictures (arXiv 2311.07397).

The generative half asks for a description and scores its words; the discriminative half asks about
existence, attributes and relations. Both are read from the folder `data/` of AMBER's repository.
"""
