"""Decode steps that cost the host next to nothing: fixed buffers, compiled or captured once."""
