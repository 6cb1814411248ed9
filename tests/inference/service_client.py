"""An HTTP client that keeps its connections and remembers every exchange."""

from __future__ import annotations

import http.client
import json
import time
from urllib.parse import urlencode

from traffic import Exchange, find_header


class Client:
    """Speaks to one service; several connections, used in turn, as a pool would."""

    def __init__(self, host: str, port: int, connections: int = 4, **headers: str):
        self.host, self.port = host, port
        self.connections = [http.client.HTTPConnection(host, port, timeout=30) for _ in range(connections)]
        self.headers = {"User-Agent": "python-requests/2.34.2", "Accept": "*/*", **headers}
        self.exchanges: list[Exchange] = []
        self.turn = 0

    def send(self, method: str, path: str, *, query=None, headers=None, body=None, form=None, data: bytes | None = None) -> Exchange:
        """One request with an optional JSON (`body`), form or raw (`data`) body."""
        target = path + (("&" if "?" in path else "?") + urlencode(query, doseq=True) if query else "")
        sent = {"Host": f"{self.host}:{self.port}", **self.headers, **(headers or {})}
        if body is not None:
            data, media = json.dumps(body).encode(), "application/json"
            sent.setdefault("Content-Type", media)
        elif form is not None:
            data = urlencode(form).encode()
            sent.setdefault("Content-Type", "application/x-www-form-urlencoded")
        started = time.time()
        response, got = self._exchange(method, target, data, sent)
        exchange = Exchange(
            method, f"http://{self.host}:{self.port}{target}", list(sent.items()), data, response.status, response.getheaders(), got,
            at=started, took=time.time() - started,
        )
        # A body that is not text helps nobody who compares, and would be large.
        if find_header(exchange.response_headers, "content-encoding") or len(got) > 4_000_000:
            exchange.response_body = None
        self.exchanges.append(exchange)
        return exchange

    def _exchange(self, method: str, target: str, data: bytes | None, headers: dict[str, str]):
        self.turn = (self.turn + 1) % len(self.connections)
        connection = self.connections[self.turn]
        for attempt in (0, 1):
            try:
                connection.request(method, target, data, headers)
                response = connection.getresponse()
                return response, response.read()
            except (ConnectionError, http.client.HTTPException):
                # The service closed a connection that was kept: once more on a new one.
                connection.close()
                if attempt:
                    raise
        raise AssertionError("unreachable")

    def close(self) -> None:
        for connection in self.connections:
            connection.close()
