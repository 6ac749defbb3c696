"""ulpgrad: a tensor engine in which every bit is accounted for.

    import ulpgrad as ug

    x = ug.asarray([[1.0, 2.0]], dtype=ug.bfloat16)
    y = (x @ ug.ones((2, 3), dtype=ug.bfloat16)).numpy()

Array functions follow the Python array API standard (2024.12), layers and training torch's names.
"""

from __future__ import annotations

import gc
import importlib
import warnings
from typing import TYPE_CHECKING, Any

# Kernels meet overflow and NaN as values, not as events: NumPy's warnings about them are silenced, for our own calls only.
warnings.filterwarnings("ignore", category=RuntimeWarning, module=r"ulpgrad\.")

# Nothing that is imported here becomes garbage, while the collector would look through all of it a dozen times.
_was_collecting = gc.isenabled()
gc.disable()
try:
    from ulpgrad import errors as errors
    from ulpgrad.autograd import (
        enable_grad as enable_grad,
        grad as grad,
        is_grad_enabled as is_grad_enabled,
        no_grad as no_grad,
    )
    from ulpgrad.device import (
        Device as Device,
    )
    from ulpgrad.dispatch import (
        log_kernels as log_kernels,
        use as use,
    )
    from ulpgrad.explain import (
        explain as explain,
    )
    from ulpgrad.formats import (
        FORMATS,
        Affine as Affine,
        Block as Block,
        Fixed as Fixed,
        Float as Float,
        Format as Format,
        Q as Q,
        as_format as as_format,
        bfloat16 as bfloat16,
        bool_ as bool,  # noqa: F401
        float4_e2m1fn as float4_e2m1fn,
        float6_e2m3fn as float6_e2m3fn,
        float6_e3m2fn as float6_e3m2fn,
        float8_e4m3fn as float8_e4m3fn,
        float8_e4m3fnuz as float8_e4m3fnuz,
        float8_e5m2 as float8_e5m2,
        float8_e5m2fnuz as float8_e5m2fnuz,
        float8_e8m0fnu as float8_e8m0fnu,
        float16 as float16,
        float32 as float32,
        float64 as float64,
        get_default_dtype as get_default_dtype,
        int8 as int8,
        int16 as int16,
        int32 as int32,
        int64 as int64,
        set_default_dtype as set_default_dtype,
        uint8 as uint8,
        uint16 as uint16,
        uint32 as uint32,
        uint64 as uint64,
    )
    from ulpgrad.function import (
        Function as Function,
    )
    from ulpgrad.fused import (
        fused as fused,
    )
    from ulpgrad.kernels import (
        memory as memory,
    )
    from ulpgrad.kernels.threads import (
        get_num_threads as get_num_threads,
        set_num_threads as set_num_threads,
    )
    from ulpgrad.ops import *
    from ulpgrad.ops import __array_namespace_info__ as __array_namespace_info__
    from ulpgrad.profile import (
        profile as profile,
    )
    from ulpgrad.random import (
        Generator as Generator,
        bernoulli as bernoulli,
        manual_seed as manual_seed,
        rand as rand,
        randint as randint,
        randn as randn,
        randperm as randperm,
    )
    from ulpgrad.tensor import (
        Tensor as Tensor,
    )
finally:
    if _was_collecting:
        gc.enable()

__version__ = "0.1.0"
__array_api_version__ = "2024.12"

_LAZY = ("bench", "cuda", "data", "fixed", "io", "nn", "optim", "policy", "quantization", "testing")

if TYPE_CHECKING:
    from ulpgrad import (
        cuda as cuda,
        data as data,
        io as io,
        nn as nn,
        optim as optim,
        quantization as quantization,
        random as random,
        testing as testing,
    )
    from ulpgrad.policy import (
        GradScaler as GradScaler,
        autocast as autocast,
    )


def __getattr__(name: str) -> Any:
    """Packages for training and the laboratory are imported when first named; formats come from their table."""
    if name in _LAZY:
        return importlib.import_module(f"ulpgrad.{name}")
    if name in ("GradScaler", "autocast"):
        return getattr(importlib.import_module("ulpgrad.policy"), name)
    if name in FORMATS:
        return FORMATS[name]
    raise AttributeError(f"module 'ulpgrad' has no attribute {name!r}")
