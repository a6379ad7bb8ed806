"""Layers to build networks with, and what regularises them."""

from carousel.graph.transforms import (
    ClipState,
    InputDropout,
    Normalise,
    Projected,
    RecurrentDropout,
    StateDropout,
    Transform,
    VariationalDropout,
    WeightDrop,
    Zoneout,
)
from carousel.nn.attention import AttentionStream, CausalAttention
from carousel.nn.linear import Linear
from carousel.nn.losses import SoftmaxLoss, linear_cross_entropy
from carousel.nn.packed import pack_padded_sequence, pad_packed_sequence
from carousel.nn.penalties import ActivationPenalty, Penalty, TemporalActivationPenalty, WeightPenalty
from carousel.nn.recurrent import Recurrent
from carousel.nn.stream import Stream
from carousel.nn.summary import SUMMARIES, AttentionSummary, LastSummary, MaxSummary, MeanSummary, Summary
from carousel.nn.torch_cells import GRUCell, LSTMCell, RNNCell
from carousel.nn.torch_layers import GRU, LSTM, RNN

__all__ = [
    "GRU",
    "LSTM",
    "RNN",
    "SUMMARIES",
    "ActivationPenalty",
    "AttentionStream",
    "AttentionSummary",
    "CausalAttention",
    "ClipState",
    "GRUCell",
    "InputDropout",
    "LSTMCell",
    "LastSummary",
    "Linear",
    "MaxSummary",
    "MeanSummary",
    "Normalise",
    "Penalty",
    "Projected",
    "RNNCell",
    "Recurrent",
    "RecurrentDropout",
    "SoftmaxLoss",
    "StateDropout",
    "Stream",
    "Summary",
    "TemporalActivationPenalty",
    "Transform",
    "VariationalDropout",
    "WeightDrop",
    "WeightPenalty",
    "Zoneout",
    "linear_cross_entropy",
    "pack_padded_sequence",
    "pad_packed_sequence",
]
