"""Compiled loops over the steps of chains: what writes them, and what calls them."""
