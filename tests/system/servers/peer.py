"""Answers each line with who is asking, as accept() and as getpeername() tell it: peer.py 4|46 PORT"""
import socket
import sys
import threading

family, port = sys.argv[1], int(sys.argv[2])
if family == "46":
    listener = socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True)
else:
    listener = socket.create_server(("0.0.0.0", port))


def serve(client, told):
    with client:
        while line := client.recv(256):
            asked = client.getpeername()
            client.sendall(f"{told[0]} {told[1]}|{asked[0]} {asked[1]}|".encode() + line)


while True:
    threading.Thread(target=serve, args=listener.accept(), daemon=True).start()
