"""Other ingestion pipelines on the same pages, as their documentation composes them, with the same embedder.

They are in the dependency group `benchmarks`, which `make benchmark-setup` installs. Each keeps its vectors
with Qdrant's client in its process, in memory: the fastest way without a server. They get the pages as
objects and keep dense vectors only: they receive no deliveries, make nothing durable and index no words.
"""

import importlib.util
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from benchmarks.instant_embedder import DIMENSION, MAX_TEXTS
from benchmarks.load import in_process
from benchmarks.pages import Site

LLAMA_INDEX_TOKENS = 144
HAYSTACK_WORDS = 54
"""With these they make about as many chunks of the pages as the service."""


@dataclass(frozen=True)
class Task:
    peer: str
    embedder_url: str
    host: str
    pages: int


@dataclass(frozen=True)
class PeerResult:
    seconds: float
    cpu_seconds: float
    chunks: int


def installed() -> dict[str, str]:
    """The name of each peer and its version."""
    found = {}
    for name, module, package in (
        ("LlamaIndex", "llama_index", "llama-index-core"),
        ("Haystack", "haystack", "haystack-ai"),
    ):
        if importlib.util.find_spec(module) is not None:
            found[name] = version(package)
    return found


async def run_peer(task: Task) -> PeerResult:
    return await in_process(_run, task)


def _run(task: Task) -> PeerResult:
    os.environ["HAYSTACK_TELEMETRY_ENABLED"] = "False"
    prepare = {"LlamaIndex": _llama_index, "Haystack": _haystack}[task.peer]
    site = Site(task.host)
    pages = [(site.url(number), site.markdown(number)) for number in range(task.pages)]
    ingest, count = prepare(task.embedder_url)
    ingest(pages[:1])  # the first page finds a cold process
    before, began, used = count(), time.perf_counter(), time.process_time()
    ingest(pages)
    return PeerResult(time.perf_counter() - began, time.process_time() - used, count() - before)


Ingest = Callable[[Sequence[tuple[str, str]]], object]


def _llama_index(embedder_url: str) -> tuple[Ingest, Callable[[], int]]:
    from llama_index.core import Document
    from llama_index.core.ingestion import IngestionPipeline
    from llama_index.core.node_parser import SentenceSplitter
    from llama_index.embeddings.text_embeddings_inference import TextEmbeddingsInference
    from llama_index.vector_stores.qdrant import QdrantVectorStore
    from qdrant_client import QdrantClient

    client = QdrantClient(":memory:")
    embedder = TextEmbeddingsInference(
        model_name="instant", base_url=embedder_url, embed_batch_size=MAX_TEXTS
    )
    pipeline = IngestionPipeline(
        transformations=[SentenceSplitter(chunk_size=LLAMA_INDEX_TOKENS, chunk_overlap=0), embedder],
        vector_store=QdrantVectorStore(client=client, collection_name="pages"),
    )

    def ingest(pages: Sequence[tuple[str, str]]) -> object:
        return pipeline.run(
            documents=[Document(text=text, doc_id=url, metadata={"url": url}) for url, text in pages]
        )

    return ingest, lambda: client.count("pages").count


def _haystack(embedder_url: str) -> tuple[Ingest, Callable[[], int]]:
    from haystack import Document, Pipeline
    from haystack.components.embedders import OpenAIDocumentEmbedder
    from haystack.components.preprocessors import DocumentSplitter
    from haystack.components.writers import DocumentWriter
    from haystack.utils import Secret
    from haystack_integrations.document_stores.qdrant import QdrantDocumentStore

    store = QdrantDocumentStore(":memory:", embedding_dim=DIMENSION, similarity="cosine", progress_bar=False)
    embedder = OpenAIDocumentEmbedder(
        api_key=Secret.from_token("none"),
        api_base_url=f"{embedder_url}/v1",
        batch_size=MAX_TEXTS,
        progress_bar=False,
    )
    pipeline = Pipeline()
    pipeline.add_component("splitter", DocumentSplitter(split_by="word", split_length=HAYSTACK_WORDS))
    pipeline.add_component("embedder", embedder)
    pipeline.add_component("writer", DocumentWriter(store))
    pipeline.connect("splitter", "embedder")
    pipeline.connect("embedder", "writer")

    def ingest(pages: Sequence[tuple[str, str]]) -> Any:
        documents = [Document(content=text, meta={"url": url}) for url, text in pages]
        return pipeline.run({"splitter": {"documents": documents}})

    return ingest, store.count_documents
