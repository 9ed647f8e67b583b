"""Causal attention of other libraries on the CPU, in float32, as baselines of `sparsec bench`.

    pip install onnx onnxruntime openvino
    cd tests/bench && sparsec bench figures.sparse --pattern dense --seq-len 4096 --repeats 9 \
        --against sdpa,peers:of_onnxruntime,peers:of_onnx_attention,peers:of_openvino

Each takes q [B, H, N, D] and k, v [B, G, N, D] and gives [B, H, N, D]; what is compiled is compiled once a shape, in
the first call, which is not timed. Threads are torch's.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

Shape = tuple[int, ...]


def of_onnxruntime(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Its operator GroupQueryAttention, which takes rows of all heads: transposing is part of the call."""
    session = _group_query(tuple(q.shape), tuple(k.shape), torch.get_num_threads())
    rows = {name: t.transpose(1, 2).flatten(2).numpy() for name, t in (("q", q), ("k", k), ("v", v))}
    batch, heads, length, dim = q.shape
    lengths = {"seqlens_k": np.full(batch, length - 1, np.int32), "total": np.array([length], np.int32)}
    found = torch.from_numpy(session.run(["out"], rows | lengths)[0])
    return found.view(batch, length, heads, dim).transpose(1, 2)


def of_onnx_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """The operator Attention of ONNX in onnxruntime."""
    session = _attention(tuple(q.shape), tuple(k.shape), torch.get_num_threads())
    return torch.from_numpy(session.run(["out"], {"q": q.numpy(), "k": k.numpy(), "v": v.numpy()})[0])


def of_openvino(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """OpenVINO's ScaledDotProductAttention in float32; it takes as many key heads as query heads."""
    compiled = _openvino(tuple(q.shape), torch.get_num_threads())
    share = q.shape[1] // k.shape[1]
    k, v = (t.repeat_interleave(share, 1) if share > 1 else t for t in (k, v))
    return torch.from_numpy(compiled([q.numpy(), k.numpy(), v.numpy()])[0])


def _session(nodes: list[Any], inputs: list[Any], outputs: list[Any], threads: int) -> Any:
    import onnxruntime
    from onnx import helper

    graph = helper.make_graph(nodes, "attention", inputs, outputs)
    opsets = [helper.make_opsetid("", 23), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


@cache
def _group_query(of_q: Shape, of_k: Shape, threads: int) -> Any:
    from onnx import TensorProto, helper

    (batch, heads, length, dim), groups = of_q, of_k[1]
    floats, integers = TensorProto.FLOAT, TensorProto.INT32
    inputs = [
        helper.make_tensor_value_info(name, floats, [batch, length, count * dim])
        for name, count in (("q", heads), ("k", groups), ("v", groups))
    ]
    inputs += [
        helper.make_tensor_value_info("seqlens_k", integers, [batch]),
        helper.make_tensor_value_info("total", integers, [1]),
    ]
    names = ["q", "k", "v", "", "", "seqlens_k", "total"]
    node = helper.make_node(
        "GroupQueryAttention",
        names,
        ["out", "keys", "values"],
        domain="com.microsoft",
        num_heads=heads,
        kv_num_heads=groups,
    )
    outputs = [helper.make_tensor_value_info("out", floats, [batch, length, heads * dim])]
    outputs += [
        helper.make_tensor_value_info(name, floats, [batch, groups, length, dim]) for name in ("keys", "values")
    ]
    return _session([node], inputs, outputs, threads)


@cache
def _attention(of_q: Shape, of_k: Shape, threads: int) -> Any:
    from onnx import TensorProto, helper

    shapes = (("q", of_q), ("k", of_k), ("v", of_k))
    inputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, list(shape)) for name, shape in shapes]
    node = helper.make_node("Attention", ["q", "k", "v"], ["out"], is_causal=1)
    return _session([node], inputs, [helper.make_tensor_value_info("out", TensorProto.FLOAT, list(of_q))], threads)


@cache
def _openvino(shape: Shape, threads: int) -> Any:
    import openvino
    from openvino import opset13

    q, k, v = (opset13.parameter(list(shape), np.float32, name=name) for name in "qkv")
    model = openvino.Model([opset13.scaled_dot_product_attention(q, k, v, causal=True)], [q, k, v])
    settings = {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": "f32"}
    return openvino.Core().compile_model(model, "CPU", settings)
