"""Builds the package's graph: multilingual-e5-small without its weights.

    python -m venv /tmp/e5 && . /tmp/e5/bin/activate
    pip install onnx==1.23.2
    python build_graph.py

The graph is written node by node, with the quantised and fused operators of ONNX Runtime from the start.
Skip connections are not fused: their operator takes five times as long on a CPU. The weights are external
data without a file: `weights.py` computes them from the wheel, and hands them to the session by name.
"""

# ruff: noqa: T201  # a script that people run by hand tells them what it made

import hashlib
from dataclasses import dataclass, field
from pathlib import Path

import onnx
from onnx import TensorProto, helper

TARGET = Path(__file__).parent / "src" / "crawlscope_e5" / "graph.onnx"
LAYERS = 12
HEADS = 12
DIMENSION = 384
WIDE = 1536
EPSILON = 1e-12
OPSET = 20
IR_VERSION = 9
FUSED = "com.microsoft"
"""The domain of ONNX Runtime's own operators."""


@dataclass
class Graph:
    """Collects nodes and weights; every operator method returns the name of its first output."""

    nodes: list[onnx.NodeProto] = field(default_factory=list)
    weights: list[onnx.TensorProto] = field(default_factory=list)

    def weight(self, name: str, *shape: int, kind: int = TensorProto.FLOAT) -> str:
        tensor = onnx.TensorProto(name=name, data_type=kind, dims=shape, data_location=TensorProto.EXTERNAL)
        tensor.external_data.add(key="location", value="weights")
        self.weights.append(tensor)
        return name

    def operate(
        self, operator: str, inputs: list[str], *outputs: str, domain: str = "", **attributes: float
    ) -> str:
        self.nodes.append(
            helper.make_node(
                operator, inputs, outputs, name=f"{outputs[0]}/{operator}", domain=domain, **attributes
            )
        )
        return outputs[0]

    def multiply(self, name: str, source: str, height: int, width: int) -> str:
        """By a matrix, plus its bias."""
        matrix = self.weight(f"{name}.weight", height, width, kind=TensorProto.INT8)
        scale, bias = self.weight(f"{name}.scale", width), self.weight(f"{name}.bias", width)
        return self.operate("DynamicQuantizeMatMul", [source, matrix, scale, "", bias], name, domain=FUSED)

    def normalise(self, name: str, source: str, output: str | None = None) -> str:
        gain, shift = self.weight(f"{name}.gain", DIMENSION), self.weight(f"{name}.shift", DIMENSION)
        return self.operate(
            "LayerNormalization", [source, gain, shift], output or name, axis=-1, epsilon=EPSILON
        )

    def attend(self, name: str, source: str) -> str:
        """Query, key and value side by side in one matrix."""
        width = 3 * DIMENSION
        rounded = [f"{name}.rounded", f"{name}.rounded.scale", f"{name}.rounded.zero"]
        self.operate("DynamicQuantizeLinear", [source], *rounded)
        matrix = self.weight(f"{name}.weight", DIMENSION, width, kind=TensorProto.INT8)
        zero = self.weight(f"{name}.zero", width, kind=TensorProto.INT8)
        bias, scale = self.weight(f"{name}.bias", width), self.weight(f"{name}.scale", width)
        inputs = [rounded[0], matrix, bias, rounded[1], scale, "", rounded[2], zero]
        return self.operate("QAttention", inputs, name, domain=FUSED, num_heads=HEADS)

    def add_layer(self, number: int, source: str, output: str) -> str:
        name = f"layer{number}"
        projected = self.multiply(
            f"{name}.projected", self.attend(f"{name}.attention", source), DIMENSION, DIMENSION
        )
        summed = self.operate("Add", [projected, source], f"{name}.attended.sum")
        attended = self.normalise(f"{name}.attended", summed)
        activated = self.operate(
            "Gelu", [self.multiply(f"{name}.wide", attended, DIMENSION, WIDE)], f"{name}.activated"
        )
        narrow = self.multiply(f"{name}.narrow", activated, WIDE, DIMENSION)
        return self.normalise(
            f"{name}.output", self.operate("Add", [narrow, attended], f"{name}.output.sum"), output
        )

    def model(self) -> onnx.ModelProto:
        shape = ["texts", "tokens", DIMENSION]
        source, hidden = (
            helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("embeddings", "hidden")
        )
        graph = helper.make_graph(self.nodes, "multilingual-e5-small", [source], [hidden], self.weights)
        opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(FUSED, 1)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION)


def build() -> onnx.ModelProto:
    graph = Graph()
    hidden = graph.normalise("norm", "embeddings")
    for number in range(LAYERS):
        hidden = graph.add_layer(number, hidden, "hidden" if number == LAYERS - 1 else f"hidden{number}")
    return graph.model()


def main() -> None:
    content = build().SerializeToString(deterministic=True)
    TARGET.write_bytes(content)
    print(f"{hashlib.sha256(content).hexdigest()}  {TARGET.name}  {len(content)} bytes")


if __name__ == "__main__":
    main()
