"""Both ends of WebSocket (RFC 6455), by a library that is not ours.

websocket.py serve HOST   prints its port, then the path of each connection; says who connected, then
                          sends each message back
websocket.py ask URL      text, bytes, a message in fragments and a large one; prints what came of it
"""

import json
import os
import sys
from socket import AF_INET, AF_INET6

from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect
from websockets.sync.server import serve

PATIENCE = 10 * int(os.environ.get("TEST_SLOWNESS", 1))


def greet_and_echo(socket):
    print(socket.request.path, flush=True)
    fields = [name.lower() for name, _ in socket.request.headers.raw_items()]
    socket.send(json.dumps({"from": socket.remote_address[0], "fields": fields}))
    for message in socket:
        if message == "close":
            return socket.close(1000, "as asked")
        socket.send(message)


def ask(url):
    # Not by way of whatever the environment names.
    options = {"proxy": None, "open_timeout": PATIENCE, "close_timeout": PATIENCE}
    try:
        with connect(url, **options) as socket:
            return talk(socket)
    except InvalidStatus as refused:
        return {"refused": refused.response.status_code}


def talk(socket):
    said = json.loads(socket.recv(PATIENCE))
    said["peer"] = socket.socket.getpeername()[:2]
    large = os.urandom(300_000)
    socket.send("grüße")
    assert socket.recv(PATIENCE) == "grüße"
    socket.send([b"in ", b"three ", b"parts"])
    assert socket.recv(PATIENCE) == b"in three parts"
    socket.send(large)
    assert socket.recv(PATIENCE) == large
    assert socket.ping().wait(PATIENCE), "no pong"
    socket.send("close")
    for message in socket:
        raise AssertionError(message)
    said["closed"] = [socket.close_code, socket.close_reason]
    return said


match sys.argv[1:]:
    case ["serve", host]:
        family = AF_INET6 if ":" in host else AF_INET
        with serve(greet_and_echo, host, 0, open_timeout=PATIENCE, family=family) as server:
            print(server.socket.getsockname()[1], flush=True)
            server.serve_forever()
    case ["ask", url]:
        print(json.dumps(ask(url)))
