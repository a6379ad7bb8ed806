"""Layers to build networks with."""

from carousel.nn.recurrent import Recurrent
from carousel.nn.summary import SUMMARIES, AttentionSummary, LastSummary, MaxSummary, MeanSummary, Summary
from carousel.nn.torch_cells import GRUCell, LSTMCell, RNNCell
from carousel.nn.torch_layers import GRU, LSTM, RNN

__all__ = [
    "GRU",
    "LSTM",
    "RNN",
    "SUMMARIES",
    "AttentionSummary",
    "GRUCell",
    "LSTMCell",
    "LastSummary",
    "MaxSummary",
    "MeanSummary",
    "RNNCell",
    "Recurrent",
    "Summary",
]
