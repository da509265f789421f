"""Counts and times for Prometheus, over all processes of the service. No label ever holds an identifier."""

from __future__ import annotations

import os
import time
from typing import Final

from flask import Flask, Response, g, request
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import REGISTRY

from ledger.errors import LedgerError
from ledger.release import Release

MULTIPROCESS: Final = "PROMETHEUS_MULTIPROC_DIR"
# Statuses and routes are of a small number; what was asked for is not looked at.
REQUESTS: Final = Counter("consent_ledger_requests", "Requests answered", ["route", "method", "status"])
SECONDS: Final = Histogram("consent_ledger_request_seconds", "Time to answer", ["route"])
RELEASES: Final = Counter("consent_ledger_releases", "Releases by outcome", ["outcome"])


def count_release(result: Release | Exception) -> None:
    """Count what became of a request for a release: `released`, or the code of the refusal."""
    outcome = "released" if isinstance(result, Release) else result.code if isinstance(result, LedgerError) else "error"
    RELEASES.labels(outcome).inc()


def install(app: Flask) -> None:
    """Measure every request, and serve /metrics."""
    app.before_request(_start)
    app.after_request(_count)
    app.add_url_rule("/metrics", view_func=_metrics)


def _start() -> None:
    g.started = time.perf_counter()


def _count(response: Response) -> Response:
    route = str(request.url_rule) if request.url_rule else "none"
    method = request.method if request.method in ("GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS") else "other"
    REQUESTS.labels(route, method, response.status_code).inc()
    if "started" in g:
        SECONDS.labels(route).observe(time.perf_counter() - g.started)
    return response


def _metrics() -> Response:
    registry = REGISTRY
    if MULTIPROCESS in os.environ:
        registry = CollectorRegistry()
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    return Response(generate_latest(registry), content_type=CONTENT_TYPE_LATEST)
