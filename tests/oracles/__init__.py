"""Recurrent cells transcribed from their papers in NumPy float64, without sight of `src/`.

Every cell module has `run`, and the older ones have `gradients`:

    run(x, state, p, **options) -> (outputs, final_state, states)
    gradients(x, state, p, d_outputs, d_final_state, **options) -> (dx, d_state, dp)

`x` is (T, B, I); `state`, `final_state` and `d_state` map a state's name to (B, H); `states` maps it to
(T, B, H), the state *after* each step; `p` and `dp` map a parameter's name to its array. W is (out, in) and meets x, U
is (out, in) and meets the recurrent vector, b is a bias, p_ a peephole (one weight per unit). T may be 0. All
arrays are float64; no argument is changed.

Where a cell's needs are wider, its module says so: a state or an input may have more axes than (B, H), several inputs
are a dict of name -> (T, B, ...), and what does not run with time is the option `context`, a dict of name -> (B, ...).

A module may have `run` alone: the cells of `test_more_oracles.py` have no hand-derived gradients. Where there are
some, they are the full ones, derived by hand: the papers of 1997 to 2002 truncate theirs at the gates. An `a_`
names the argument of a squashing function, a leading `d` the derivative of the loss by what follows it.
"""
