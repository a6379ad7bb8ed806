"""The kinds of node a step is made of. An open set: a new kind is a subclass of :class:`Kind`, and nothing lists them."""

from carousel.graph.kinds.base import Eager, Hoisting, Kind
from carousel.graph.kinds.elementwise import FUNCTIONS, Elementwise, Function, register
from carousel.graph.kinds.leaves import Constant, Leaf, Role
from carousel.graph.kinds.products import Dense, Total, TotalKind, TotalOuter
from carousel.graph.kinds.reductions import Count, CumulativeSum, LogSumExp, Max, Mean, Softmax, Stretch, Sum

__all__ = [
    "FUNCTIONS",
    "Constant",
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
    "Role",
    "Softmax",
    "Stretch",
    "Sum",
    "Total",
    "TotalKind",
    "TotalOuter",
    "register",
]
