"""The counters of the service, for Prometheus. They hold nothing of an image or a request."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from mammo.serving.finding import Model


class Measures:
    """The counters of one service."""

    media_type = CONTENT_TYPE_LATEST

    def __init__(self) -> None:
        """Begin at nothing."""
        self._all = own = CollectorRegistry()
        self._requests = Counter(
            "mammoflow_requests", "Requests.", ["path", "status"], registry=own
        )
        self._seconds = Histogram(
            "mammoflow_request_seconds", "Until the answer.", ["path"], registry=own
        )
        self.read = Counter("mammoflow_images_read", "Images with a finding.", registry=own)
        self.unread = Counter("mammoflow_images_unread", "Files without one.", registry=own)
        self.waiting = Gauge("mammoflow_requests_waiting", "Requests at this time.", registry=own)
        self._model = Info("mammoflow_model", "The model that answers.", registry=own)

    def count(self, path: str, status: int, seconds: float) -> None:
        """Count a request."""
        self._requests.labels(path, str(status)).inc()
        self._seconds.labels(path).observe(seconds)

    def serve(self, model: Model) -> None:
        """Say which model answers."""
        self._model.info({"name": model.name, "version": str(model.version), "code": model.code})

    def write(self) -> bytes:
        """All counters, as Prometheus reads them."""
        return generate_latest(self._all)
