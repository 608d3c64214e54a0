"""One origin for a browser: the OHIF viewer's files, and an archive's DICOMweb below ``/dicom-web``."""

from __future__ import annotations

import http.client
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Route

from tests.ports import free_port

CONFIGURATION = Path(__file__).with_name("app-config.js")
_HEADERS = {
    "Cross-Origin-Opener-Policy": "same-origin",  # with the next: the viewer's workers may share memory
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Cross-Origin-Resource-Policy": "same-origin",
}
_FORWARDED = ("host", "accept")
"""Orthanc builds the addresses of bulk data from Host, so that they lead back here."""


def viewer_site(viewer: Path, pacs_http_port: int) -> Starlette:
    """The site: an unknown path is the viewer's own (it is a single page), and gives its first page."""

    def archive(request: Request) -> Response:
        upstream = http.client.HTTPConnection("127.0.0.1", pacs_http_port, timeout=60)
        target = f"{request.url.path}?{request.url.query}".removesuffix("?")
        headers = {name: request.headers[name] for name in _FORWARDED if name in request.headers}
        try:
            upstream.request("GET", target, headers=headers)
            answer = upstream.getresponse()
            body = answer.read()
        finally:
            upstream.close()
        kind = {"Content-Type": answer.headers.get("Content-Type", "application/octet-stream")}
        return Response(body, answer.status, kind | _HEADERS)

    def page(request: Request) -> Response:
        path = (viewer / request.path_params["path"]).resolve()
        is_file = path.is_relative_to(viewer.resolve()) and path.is_file()
        return FileResponse(path if is_file else viewer / "index.html", headers=_HEADERS)

    def configuration(_: Request) -> Response:
        return FileResponse(CONFIGURATION, headers=_HEADERS, media_type="text/javascript")

    def no_service_worker(_: Request) -> Response:
        return Response("", headers=_HEADERS, media_type="text/javascript")

    return Starlette(
        routes=[
            Route("/dicom-web/{path:path}", archive),
            Route("/app-config.js", configuration),
            Route("/init-service-worker.js", no_service_worker),
            Route("/{path:path}", page),
        ]
    )


@contextmanager
def served(site: Starlette) -> Iterator[str]:
    """Serve a site on a free loopback port until the block ends; gives its root URL."""
    port = free_port()
    server = uvicorn.Server(uvicorn.Config(site, host="127.0.0.1", port=port, log_level="warning"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    deadline = time.monotonic() + 20
    while not server.started:
        assert thread.is_alive(), "the site did not start"
        assert time.monotonic() < deadline, "the site did not start within 20 s"
        time.sleep(0.02)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(timeout=20)
