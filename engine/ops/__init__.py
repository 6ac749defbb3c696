"""The functions on tensors, by family. Names and signatures are the array API standard's for array functions, torch's for
layers; each differentiable function stands beside its gradient."""

from ulpgrad.ops.common import as_tensor as as_tensor
from ulpgrad.ops.creation import *
from ulpgrad.ops.dtypes import *
from ulpgrad.ops.einsum import *
from ulpgrad.ops.elementwise import *
from ulpgrad.ops.indexing import *
from ulpgrad.ops.linalg import *
from ulpgrad.ops.manipulation import *
from ulpgrad.ops.methods import bind
from ulpgrad.ops.reduction import *
from ulpgrad.ops.sorting import *

bind()
