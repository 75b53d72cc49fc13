"""A Qdrant server on loopback: the endpoints that the adapter uses, on `qdrant-client`'s in-memory mode."""

import json
import re
import threading
import warnings
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from types import TracebackType
from typing import Any, Self

from pydantic import BaseModel, TypeAdapter
from qdrant_client import QdrantClient, models

from tests.support.fakes.loopback import LoopbackServer

Answer = Callable[[QdrantClient, str, Any], object]


def created(client: QdrantClient, collection: str, body: dict[str, Any]) -> object:
    wanted = models.CreateCollection.model_validate(body)
    return client.create_collection(
        collection, vectors_config=wanted.vectors, sparse_vectors_config=wanted.sparse_vectors
    )


def upserted(client: QdrantClient, collection: str, body: dict[str, Any]) -> object:
    points = TypeAdapter(list[models.PointStruct]).validate_python(body["points"])
    return client.upsert(collection, points)


def deleted(client: QdrantClient, collection: str, body: dict[str, Any]) -> object:
    return client.delete(collection, models.FilterSelector.model_validate(body))


def payload_set(client: QdrantClient, collection: str, body: dict[str, Any]) -> object:
    wanted = models.SetPayload.model_validate(body)
    assert wanted.filter is not None
    return client.set_payload(collection, wanted.payload, wanted.filter)


def retrieved(client: QdrantClient, collection: str, body: dict[str, Any]) -> object:
    wanted = models.PointRequest.model_validate(body)
    with_payload = True if wanted.with_payload is None else wanted.with_payload
    return client.retrieve(collection, wanted.ids, with_payload, wanted.with_vector or False)


def queried(client: QdrantClient, collection: str, body: dict[str, Any]) -> object:
    return client.query_batch_points(
        collection, TypeAdapter(list[models.QueryRequest]).validate_python(body["searches"])
    )


ANSWERS: dict[tuple[str, str], Answer] = {
    ("GET", ""): lambda client, collection, _: client.get_collection(collection),
    ("GET", "/exists"): lambda client, collection, _: {"exists": client.collection_exists(collection)},
    ("PUT", ""): created,
    ("DELETE", ""): lambda client, collection, _: client.delete_collection(collection),
    ("PUT", "/index"): lambda *_: {"operation_id": 0, "status": "completed"},
    ("PUT", "/points"): upserted,
    ("POST", "/points"): retrieved,
    ("POST", "/points/count"): lambda client, collection, _: client.count(collection),
    ("POST", "/points/delete"): deleted,
    ("POST", "/points/payload"): payload_set,
    ("POST", "/points/query/batch"): queried,
}
"""By method and the path below a collection."""


class FakeQdrant:
    """Survives the processes that use it, as a server does."""

    def __init__(self) -> None:
        self.client = QdrantClient(":memory:")
        self._one_at_a_time = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        handler = type("Handler", (_Handler,), {"fake": self})
        self._server = LoopbackServer(("127.0.0.1", 0), handler)
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()

    def answer(self, method: str, path: str, body: Any) -> tuple[int, object]:
        """The HTTP status and the result."""
        if path == "/":
            return 200, {"title": "qdrant", "version": "1.17.0"}
        found = re.fullmatch(r"/collections/([^/]+)(.*)", path)
        if found is None or (method, found[2]) not in ANSWERS:
            return 404, {"status": {"error": f"no such endpoint: {method} {path}"}}
        with self._one_at_a_time, warnings.catch_warnings(action="ignore"):
            try:
                result = ANSWERS[method, found[2]](self.client, found[1], body)
            except ValueError as error:  # of a collection that is not there
                return 404, {"status": {"error": str(error)}}
        return 200, {"result": in_json(result), "status": "ok", "time": 0.0}


def in_json(result: object) -> object:
    if isinstance(result, BaseModel):
        return result.model_dump(mode="json")
    return [in_json(each) for each in result] if isinstance(result, list) else result


class _Handler(BaseHTTPRequestHandler):
    fake: FakeQdrant
    protocol_version = "HTTP/1.1"
    wbufsize = -1
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(length)) if length else None
        status, answer = self.fake.answer(self.command, self.path.partition("?")[0], body)
        content = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_PUT = do_POST = do_DELETE = do_GET  # noqa: N815 - the base class's names

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 — the base class's name
        """Says nothing: a test's output is its own."""
