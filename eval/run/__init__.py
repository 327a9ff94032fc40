"""What is asked of a model, and the folder of the answers.

Settings and flags, arms, batches, processes and costs are here; no benchmark is.
"""
