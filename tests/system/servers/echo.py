"""A Python server for marked traffic: GET or POST /m/ID?len=N[&gzip=1][&chunked=1][&status=S].

The answer's body is "ID." over and over, N bytes of it, so that whoever saw the request can tell
whether a response is its own.
"""

import gzip
import socket
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit


class Echo(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # One write a response: Nagle's algorithm and delayed acknowledgements would cost 40 ms each.
    wbufsize = -1
    disable_nagle_algorithm = True

    def read_body(self):
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            while True:
                size = int(self.rfile.readline().split(b";")[0], 16)
                if size:
                    self.rfile.read(size)
                self.rfile.readline()
                if not size:
                    return
        self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def answer(self):
        self.read_body()
        url = urlsplit(self.path)
        query = {key: values[0] for key, values in parse_qs(url.query).items()}
        marker = url.path.rsplit("/", 1)[1] + "."
        length = int(query.get("len", 0))
        body = (marker * (length // len(marker) + 1))[:length].encode()
        self.send_response(int(query.get("status", 200)))
        self.send_header("Content-Type", "text/plain")
        if "gzip" in query:
            body = gzip.compress(body, 1)
            self.send_header("Content-Encoding", "gzip")
        if "chunked" in query:
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for at in range(0, len(body), 700):
                chunk = body[at : at + 700]
                self.wfile.write(b"%x\r\n%s\r\n" % (len(chunk), chunk))
            self.wfile.write(b"0\r\n\r\n")
        else:
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    do_GET = do_POST = do_PUT = answer

    def log_message(self, *_):
        pass


class Server(ThreadingHTTPServer):
    address_family = socket.AF_INET6
    request_queue_size = 512
    daemon_threads = True


Server(("::", int(sys.argv[1])), Echo).serve_forever()
