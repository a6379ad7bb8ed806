r"""The layer around a cell's oracle: deep, bidirectional, ragged.

Bidirectional as in M. Schuster, K. K. Paliwal, "Bidirectional Recurrent Neural Networks", IEEE Trans. Signal
Processing 45(11), 1997; layers stacked as in A. Graves, A. Mohamed, G. Hinton, arXiv:1303.5778, 2013: both
directions of a layer feed both of the next.

Conventions: a row is run alone (B = 1) on its real steps x[:lengths[b], b] only, so padding is never read.
Direction 0 runs forwards; direction 1, where there is one, on the real steps flipped, and its outputs are flipped
back: step t of it has seen t..lengths[b]-1. Features are concatenated forward first. Padded outputs are 0. The
final state of a direction is the one after the last step that direction took: for the backward one, after step 0.
A row of length 0 keeps its initial state.

x is (T, B, I), lengths (B,); params[layer][direction] is a cell's p and states[layer][direction] its state,
(B, H) each. Returns outputs (T, B, D*O) of the last layer and finals[layer][direction].
"""

import numpy as np


def run(cell_module, x, lengths, params, states, **options):
    T, B, _ = x.shape
    inputs = x
    finals = []
    for layer_params, layer_states in zip(params, states, strict=True):
        layer_outputs = []
        layer_finals = []
        for direction, (p, state) in enumerate(zip(layer_params, layer_states, strict=True)):
            outputs = None
            final = {name: value.copy() for name, value in state.items()}
            for b in range(B):
                n = int(lengths[b])
                row = inputs[:n, b : b + 1]
                if direction == 1:
                    row = row[::-1]
                row_state = {name: value[b : b + 1] for name, value in state.items()}
                row_outputs, row_final, _ = cell_module.run(row, row_state, p, **options)
                if direction == 1:
                    row_outputs = row_outputs[::-1]
                if outputs is None:
                    outputs = np.zeros((T, B, row_outputs.shape[2]))
                if n > 0:
                    outputs[:n, b] = row_outputs[:, 0]
                    for name in final:
                        final[name][b] = row_final[name][0]
            layer_outputs.append(outputs)
            layer_finals.append(final)
        inputs = np.concatenate(layer_outputs, axis=2)
        finals.append(layer_finals)
    return inputs, finals
