"""Files: atomic writing, and weights in the safetensors format."""

from ulpgrad.io.atomic import atomic_write
from ulpgrad.io.safetensors import load, load_metadata, save

__all__ = ["atomic_write", "load", "load_metadata", "save"]
