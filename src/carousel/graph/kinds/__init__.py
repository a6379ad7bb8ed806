"""The kinds of node a step is made of. An open set: a new kind is a subclass of :class:`Kind`, and nothing lists them."""

from carousel.graph.kinds.base import Eager, Hoisting, Kind
from carousel.graph.kinds.convolution import Convolution, TotalCorrelation
from carousel.graph.kinds.elementwise import FUNCTIONS, Elementwise, Function, register
from carousel.graph.kinds.leaves import Constant, Leaf, Number, Role
from carousel.graph.kinds.noise import Noise, philox
from carousel.graph.kinds.products import Dense, Total, TotalByRow, TotalKind, TotalOuter
from carousel.graph.kinds.reductions import Count, CumulativeSum, LogSumExp, Max, Mean, Softmax, Stretch, Sum
from carousel.graph.kinds.rowwise import Block, Outer, Reshape, RowProduct, TotalBlockOuter

__all__ = [
    "FUNCTIONS",
    "Block",
    "Constant",
    "Convolution",
    "Count",
    "CumulativeSum",
    "Dense",
    "Eager",
    "Elementwise",
    "Function",
    "Hoisting",
    "Kind",
    "Leaf",
    "LogSumExp",
    "Max",
    "Mean",
    "Noise",
    "Number",
    "Outer",
    "Reshape",
    "Role",
    "RowProduct",
    "Softmax",
    "Stretch",
    "Sum",
    "Total",
    "TotalBlockOuter",
    "TotalByRow",
    "TotalCorrelation",
    "TotalKind",
    "TotalOuter",
    "philox",
    "register",
]
