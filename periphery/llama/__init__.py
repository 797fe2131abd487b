"""Llama: serves a local model to Fiedler, from a sandbox that has the weights and nothing else."""

from periphery.llama.mad import Llama

__all__ = ["Llama"]
