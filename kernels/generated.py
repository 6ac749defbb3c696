"""Source that is written while the program runs, as modules: in files, which Numba's cache and Triton's compiler want to read."""

from __future__ import annotations

import hashlib
import importlib.util
import sys
import tempfile
from functools import cache
from pathlib import Path
from types import ModuleType

from ulpgrad import settings


@cache
def load(kind: str, name: str, text: str) -> ModuleType:
    """The module that the text is. Its file is named after what is in it, so that processes share it without a lock."""
    digest = hashlib.sha256(text.encode()).hexdigest()[:12]
    path = settings.cache_folder(kind) / f"{name}_{digest}.py"
    if not path.exists():
        with tempfile.NamedTemporaryFile("w", dir=path.parent, suffix=".new", delete=False) as fresh:
            fresh.write(text)
        Path(fresh.name).replace(path)
    found = importlib.util.spec_from_file_location(f"ulpgrad_generated.{path.stem}", path)
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    sys.modules[found.name] = module
    found.loader.exec_module(module)
    return module
