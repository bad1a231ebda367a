"""Weights as bytes and files: safetensors, what `torch.save` writes, and digests."""

from chainrule.engine.io.files import digest
from chainrule.engine.io.pth import load_pth
from chainrule.engine.io.pth_writing import save_pth, save_pth_file
from chainrule.engine.io.safetensors import load, load_file, save, save_file, save_into, saved_bytes
from chainrule.engine.io.weights import load_weights

__all__ = [
    "digest",
    "load",
    "load_file",
    "load_pth",
    "load_weights",
    "save",
    "save_file",
    "save_into",
    "save_pth",
    "save_pth_file",
    "saved_bytes",
]
