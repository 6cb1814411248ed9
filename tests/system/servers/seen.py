"""Answers with what it has received: as JSON, with the address that it was told is the client's.

GET  /close         ends the connection after the answer
GET  /slow?ms=N     takes its time
     /fail?status=N answers with that, and with what nobody should see
     /drop          ends the connection without an answer
GET  Upgrade: NAME  switches protocols if NAME is `websocket` or `mirror`, then sends bytes back
"""

import hashlib
import json
import socket
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit


class Seen(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1
    disable_nagle_algorithm = True

    def body(self):
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            while size := int(self.rfile.readline().split(b";")[0], 16):
                yield self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return
        left = int(self.headers.get("Content-Length") or 0)
        while left:
            part = self.rfile.read(min(left, 65536))
            left -= len(part)
            yield part

    def answer(self):
        url = urlsplit(self.path)
        if self.headers.get("Upgrade") in ("websocket", "mirror"):
            return self.mirror(self.headers["Upgrade"])
        size, digest = 0, hashlib.sha256()
        for part in self.body():
            size += len(part)
            digest.update(part)
        if url.path == "/slow":
            time.sleep(int(parse_qs(url.query)["ms"][0]) / 1000)
        if url.path == "/drop":
            self.close_connection = True
            return
        if url.path == "/fail":
            return self.fail(int(parse_qs(url.query)["status"][0]))
        seen = {
            "method": self.command,
            "target": self.path,
            "version": self.request_version,
            "headers": [[name.lower(), value] for name, value in self.headers.items()],
            "client": [self.client_address[0].removeprefix("::ffff:"), self.client_address[1]],
            "size": size,
            "sha256": digest.hexdigest(),
        }
        answer = json.dumps(seen).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)
        self.close_connection |= url.path == "/close"

    def fail(self, status):
        answer = b'{"error":"no row for ann@example.com","password":"s3cr3t","code":42}'
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Set-Cookie", "sid=s3cr3t")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def mirror(self, protocol):
        self.send_response(101)
        self.send_header("Upgrade", protocol)
        self.send_header("Connection", "Upgrade")
        self.end_headers()
        self.wfile.flush()
        while part := self.rfile.read1(65536):
            self.wfile.write(part)
            self.wfile.flush()
        self.close_connection = True

    do_GET = do_POST = do_PUT = do_DELETE = do_HEAD = do_OPTIONS = answer

    def log_message(self, *_):
        pass


class Server(ThreadingHTTPServer):
    address_family = socket.AF_INET6
    request_queue_size = 512
    daemon_threads = True


Server(("::", int(sys.argv[1])), Seen).serve_forever()
