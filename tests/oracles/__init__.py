"""Recurrent cells transcribed from their papers in NumPy float64, without sight of `src/`.

Every cell module has the same two functions:

    run(x, state, p, **options) -> (outputs, final_state, states)
    gradients(x, state, p, d_outputs, d_final_state, **options) -> (dx, d_state, dp)

`x` is (T, B, I); `state`, `final_state` and `d_state` map a state's name to (B, H); `states` maps it to
(T, B, H), the state *after* each step; `p` and `dp` map a parameter's name to its array. W is (out, in) and meets x, U
is (out, in) and meets the recurrent vector, b is a bias, p_ a peephole (one weight per unit). T may be 0. All
arrays are float64; no argument is changed.

The gradients are the full ones, derived by hand: the papers of 1997 to 2002 truncate theirs at the gates. An `a_`
names the argument of a squashing function, a leading `d` the derivative of the loss by what follows it.
"""
