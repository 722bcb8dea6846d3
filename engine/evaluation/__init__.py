"""Evaluation: what a checkpoint answers, how probable the right answer is, and how sure we can be of the figures."""
