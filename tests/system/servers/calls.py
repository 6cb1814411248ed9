"""Calls HOST PORT as a workload does, and prints what it is told of its peer.

calls.py HOW HOST PORT [SEND]    HOW: 4, 6, mapped, bound, nonblocking, again
"""

import errno
import os
import select
import socket
import sys

how, host, port, *send = sys.argv[1:]
port = int(port)
PATIENCE = 10 * int(os.environ.get("TEST_SLOWNESS", 1))
family = socket.AF_INET6 if how in ("6", "mapped") else socket.AF_INET
s = socket.socket(family, socket.SOCK_STREAM)
s.settimeout(PATIENCE)
if how == "mapped":
    host = "::ffff:" + host
if how == "bound":
    # From an address of its own choice.
    probe = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    probe.connect((host, 9))
    s.bind((probe.getsockname()[0], 0))
if how == "again":
    # Nobody listens on 127.0.0.1:1; then the same socket connects elsewhere. With a timeout it would
    # be told of the first failure twice.
    s.settimeout(None)
    try:
        s.connect(("127.0.0.1", 1))
    except ConnectionRefusedError:
        pass
    s.settimeout(PATIENCE)
if how == "nonblocking":
    s.setblocking(False)
    assert s.connect_ex((host, port)) == errno.EINPROGRESS
    select.select([], [s], [], PATIENCE)
    assert s.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
    s.settimeout(PATIENCE)
else:
    s.connect((host, port))
peer = s.getpeername()
print(peer[0].removeprefix("::ffff:"), peer[1], flush=True)
for part in send:
    s.sendall(part.encode().decode("unicode_escape").encode("latin1"))
s.shutdown(socket.SHUT_WR)
answer = b""
while part := s.recv(65536):
    answer += part
sys.stdout.write(answer.decode("latin1"))
