"""Layers to build networks with."""

from carousel.nn.recurrent import Recurrent
from carousel.nn.summary import SUMMARIES, AttentionSummary, LastSummary, MaxSummary, MeanSummary, Summary

__all__ = ["SUMMARIES", "AttentionSummary", "LastSummary", "MaxSummary", "MeanSummary", "Recurrent", "Summary"]
