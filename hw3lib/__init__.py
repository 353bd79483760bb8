"""Variational autoencoders, adversarial attacks and defences, measured."""

__version__ = "0.1.0"
