"""The functions on tensors, by family. Names and signatures are the array API standard's for array functions, torch's for
layers; each differentiable function stands beside its gradient."""

from ulpgrad import learning
from ulpgrad.ops.accumulate import *
from ulpgrad.ops.activation import *
from ulpgrad.ops.affine import *
from ulpgrad.ops.attention import *
from ulpgrad.ops.blocks import *
from ulpgrad.ops.common import as_tensor as as_tensor
from ulpgrad.ops.convolution import *
from ulpgrad.ops.convolution_axes import *
from ulpgrad.ops.creation import *
from ulpgrad.ops.dropout import *
from ulpgrad.ops.dtypes import *
from ulpgrad.ops.einsum import *
from ulpgrad.ops.elementwise import *
from ulpgrad.ops.embedding import *
from ulpgrad.ops.fixed_point import *
from ulpgrad.ops.indexing import *
from ulpgrad.ops.linalg import *
from ulpgrad.ops.linear_loss import *
from ulpgrad.ops.loss import *
from ulpgrad.ops.manipulation import *
from ulpgrad.ops.methods import bind
from ulpgrad.ops.normalization import *
from ulpgrad.ops.packing import *
from ulpgrad.ops.pooling import *
from ulpgrad.ops.quantize import *
from ulpgrad.ops.recurrent import *
from ulpgrad.ops.reduction import *
from ulpgrad.ops.sorting import *
from ulpgrad.ops.transfer import *
from ulpgrad.ops.triangle import *

bind()
learning.begin()
