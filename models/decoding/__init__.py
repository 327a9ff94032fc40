"""Decoding methods besides greedy decoding, beam search and sampling."""
