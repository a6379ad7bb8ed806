"""ONNX Runtime as a contestant: forward, with the weights that `carousel.export` gives."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
import torch

from carousel.bench.work import Problem, Side, Unavailable
from carousel.errors import ConfigError
from carousel.export import OnnxNode, to_onnx

OPSET, IR_VERSION = 14, 8  # the oldest that serve: any runtime of these years reads them
STATES = {"LSTM": ("h", "c"), "GRU": ("h",), "RNN": ("h",)}


def runtime(problem: Problem) -> Side:
    """One node in a session, with torch's number of threads, which do not spin between calls."""
    if problem.work.trains:
        raise Unavailable("ONNX Runtime computes no gradients")
    helper, runner = _modules()
    try:
        (node,) = to_onnx(problem.layer)
    except ConfigError as error:
        raise Unavailable("ONNX has no such operator") from error
    options = runner.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.inter_op_num_threads = 1
    # Spinning workers slow whatever else runs in the process two to three times.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    model = _model(helper, node, streams=problem.work.mode == "step")
    session = runner.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    x = problem.x.numpy()
    zeros = np.zeros((1, problem.work.B, problem.work.H), np.float32)
    states = STATES[node.kind]

    def whole() -> Any:
        return session.run(["Y"], {"X": x})[0][:, 0]

    def steps() -> Any:
        outputs, given = [], dict.fromkeys(states, zeros)
        for t in range(len(x)):
            found = session.run(None, {"X": x[t : t + 1], **given})
            given = dict(zip(states, found[1:], strict=True))
            outputs.append(found[0][0, 0])
        return np.stack(outputs)

    run = steps if problem.work.mode == "step" else whole
    return Side(run, lambda: {"output": torch.from_numpy(run())})


def _modules() -> tuple[Any, Any]:
    try:
        return importlib.import_module("onnx"), importlib.import_module("onnxruntime")
    except ImportError as error:
        raise Unavailable(f"{error.name} is not installed (pip install onnx onnxruntime)") from error


def _model(onnx: Any, node: OnnxNode, streams: bool) -> Any:
    """The node as a whole model; one that streams takes the states and gives them back."""
    helper, real, names = onnx.helper, onnx.TensorProto.FLOAT, STATES[node.kind] if streams else ()
    weights = {"W": node.W, "R": node.R, "B": node.B}
    given = ["X", *weights, "", *names]
    if node.P is not None:
        weights["P"] = node.P
        given += [""] * (7 - len(given)) + ["P"]
    results = ["Y", *(f"Y_{name}" for name in names)]
    made = helper.make_node(node.kind, given, results, **node.attributes)
    values = [helper.make_tensor_value_info("X", real, ["T", "B", "I"])]
    values += [helper.make_tensor_value_info(name, real, [1, "B", "H"]) for name in names]
    outputs = [helper.make_tensor_value_info("Y", real, ["T", 1, "B", "H"])]
    outputs += [helper.make_tensor_value_info(f"Y_{name}", real, [1, "B", "H"]) for name in names]
    constants = [onnx.numpy_helper.from_array(np.ascontiguousarray(value), name) for name, value in weights.items()]
    graph = helper.make_graph([made], "layer", values, outputs, constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
