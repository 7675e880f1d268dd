#!/usr/bin/env python3
"""What one anonymous client can hold of a gateway: memory, places, and for how long. Standard library only.

    holding.py BIN [--seconds S] [--only NAME]

BIN is the directory of the gateway's programs (.build/release). Starts a gateway of its own on free ports for each case, and prints one
line of JSON for each:

    uploads-h2    100 unfinished POSTs of 1 MB over one HTTP/2 connection
    uploads-h1    200 unfinished POSTs of 1 MB, each on a connection of its own
    messages      200 WebSockets, each with a message of 1 MB of which one byte is missing
    slow-uploads  MAX_PROXIED_REQUESTS=5 and five uploads at one byte per second: when another client is served, when the five are gone
    subscriptions 40 event streams, each then given 10,000 conditions of one field by PUT, and 100 events that meet some of them

`private_mb`: what the connection worker's private memory has grown by at the most. `account_mb`: what it says that it holds. `seconds`:
after how long it was given back (REQUEST_BODY_TIMEOUT_S=60); null: not within S (default 90). `longest_turn_ms`: the longest turn of the
connection worker's loop, in CPU time (`rig_turn_longest_seconds`); `answers`: statuses of the PUTs.
"""

import argparse
import json
import os
import re
import select
import signal
import socket
import struct
import subprocess
import tempfile
import threading
import time
import urllib.error
import urllib.request

MEGABYTE = 1_000_000
TYPE = b"application/cloudevents+json"


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Gateway:
    def __init__(self, binaries, **settings):
        self.inbound, self.management = free_port(), free_port()
        environment = dict(
            os.environ, INBOUND_PORT=str(self.inbound), API_HTTP_PORT=str(self.management), BIND_ADDRESS="127.0.0.1",
            CONNECTION_WORKERS="1", LOG_LEVEL="error", REQUEST_BODY_TIMEOUT_S="60", **settings)
        self.directory = tempfile.TemporaryDirectory()
        self.process = subprocess.Popen(
            [os.path.join(os.path.abspath(binaries), "rig-supervisor")], env=environment, cwd=self.directory.name,
            stdout=subprocess.DEVNULL)
        while True:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{self.management}/readyz") as answer:
                    if answer.status == 200:
                        break
            except OSError:
                time.sleep(0.05)
        children = open(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read().split()
        self.worker = next(pid for pid in children if "connections" in open(f"/proc/{pid}/comm").read())
        self.before = self.private()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait()
        self.directory.cleanup()

    def private(self):
        text = open(f"/proc/{self.worker}/smaps_rollup").read()
        return sum(int(size) for size in re.findall(r"Private_\w+:\s+(\d+) kB", text)) / 1000

    def metric(self, series):
        with urllib.request.urlopen(f"http://127.0.0.1:{self.management}/metrics") as answer:
            text = answer.read().decode()
        return sum(float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if line.startswith(series))

    def account(self):
        return self.metric('rig_assembly_bytes{worker="connections.0"}') / MEGABYTE

    def connect(self):
        return socket.create_connection(("127.0.0.1", self.inbound))

    def define(self, api):
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.management}/v3/apis", json.dumps(api).encode(),
            {"content-type": "application/json"}, method="POST")
        urllib.request.urlopen(request).close()


def frame(kind, flags, stream, payload=b""):
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


class HTTP2:
    """Many uploads over one connection, none of them complete, as far as the windows allow."""

    def __init__(self, client):
        self.socket = client
        self.windows = {0: 65_535}
        self.ended = set()
        self.received = b""
        client.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0) + frame(8, 0, 0, struct.pack(">I", 1 << 30)))

    def open(self, stream, length):
        fields = [
            (b":method", b"POST"), (b":scheme", b"http"), (b":authority", b"a"), (b":path", b"/_rig/v1/events"),
            (b"content-type", TYPE), (b"content-length", str(length).encode())]
        block = b"".join(b"\0" + bytes([len(n)]) + n + bytes([len(v)]) + v for n, v in fields)
        self.windows[stream] = 65_535
        self.socket.sendall(frame(1, 4, stream, block))

    def read(self, seconds):
        while select.select([self.socket], [], [], seconds)[0]:
            seconds = 0
            piece = self.socket.recv(1 << 16)
            if not piece:
                return
            self.received += piece
            while len(self.received) >= 9 + int.from_bytes(self.received[:3], "big"):
                length = int.from_bytes(self.received[:3], "big")
                kind, flags = self.received[3], self.received[4]
                stream = int.from_bytes(self.received[5:9], "big")
                payload, self.received = self.received[9:9 + length], self.received[9 + length:]
                if kind == 8:
                    self.windows[stream] = self.windows.get(stream, 0) + int.from_bytes(payload, "big")
                if kind == 3 or (kind in (0, 1) and flags & 1):
                    self.ended.add(stream)
                if kind == 4 and not flags & 1:
                    self.socket.sendall(frame(4, 1, 0))

    def send(self, stream, left):
        while left > 0 and stream not in self.ended:
            self.read(0)
            count = min(left, 16_384, self.windows[0], self.windows[stream])
            if count <= 0:
                self.read(1)
                continue
            self.socket.sendall(frame(0, 0, stream, b" " * count))
            self.windows[0] -= count
            self.windows[stream] -= count
            left -= count


def uploads_h2(gateway):
    http = HTTP2(gateway.connect())
    for stream in range(1, 200, 2):
        http.open(stream, MEGABYTE)
    for stream in range(1, 200, 2):
        http.send(stream, MEGABYTE - 1)
    return http


def push(client, data):
    """Sends what is taken, and sees to it that an answer isn't in the way."""
    client.setblocking(False)
    while data:
        readable, writable, _ = select.select([client], [client], [], 5)
        try:
            if readable and not client.recv(1 << 16):
                return
            if writable:
                data = data[client.send(data):]
        except OSError:
            return
        if not readable and not writable:
            return


def uploads_h1(gateway):
    head = b"POST /_rig/v1/events HTTP/1.1\r\nhost: a\r\ncontent-type: " + TYPE + b"\r\ncontent-length: 1000000\r\n\r\n"
    clients = [gateway.connect() for _ in range(200)]
    for client in clients:
        push(client, head + b" " * (MEGABYTE - 1))
    return clients


def messages(gateway):
    handshake = (
        b"GET /_rig/v1/connection/ws HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n"
        b"sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
    clients = [gateway.connect() for _ in range(200)]
    for client in clients:
        push(client, handshake + b"\x81\xff" + struct.pack(">Q", MEGABYTE) + b"\0\0\0\0" + b" " * (MEGABYTE - 1))
    return clients


def holding(binaries, case, seconds):
    with Gateway(binaries) as gateway:
        most, account, over = [0.0], [0.0], threading.Event()

        def watch():
            while not over.wait(0.5):
                most[0] = max(most[0], gateway.private() - gateway.before)
                account[0] = max(account[0], gateway.account())

        watcher = threading.Thread(target=watch)
        watcher.start()
        began = time.monotonic()
        held = case(gateway)
        gone = None
        while gone is None and time.monotonic() - began < seconds:
            open_now = gateway.metric('rig_http_open_connections{port="inbound"}')
            streams = gateway.metric('rig_http_http2_open_streams{port="inbound"}')
            if open_now - bool(case is uploads_h2) + streams <= 0:
                gone = round(time.monotonic() - began, 1)
            time.sleep(0.2)
        over.set()
        watcher.join()
        del held
        return {"private_mb": round(most[0], 1), "account_mb": round(account[0], 1), "seconds": gone}


def slow_uploads(binaries, seconds):
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]

    def serve(client):
        received = b""
        while b"0\r\n\r\n" not in received and b"content-length: 1\r\n" not in received.lower():
            piece = client.recv(1 << 16)
            if not piece:
                return
            received += piece
        client.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")

    def accept():
        while True:
            client, _ = listener.accept()
            threading.Thread(target=serve, args=[client], daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    with Gateway(binaries, MAX_PROXIED_REQUESTS="5", TRUSTED_PROXIES="127.0.0.1") as gateway:
        gateway.define({
            "id": "a", "name": "a", "auth_type": "none", "proxy": {"target_url": "http://127.0.0.1", "port": port},
            "version_data": {"default": {"endpoints": [{"id": "x", "method": "POST", "path_regex": "/x"}]}}})
        slow = [gateway.connect() for _ in range(5)]
        for client in slow:
            client.sendall(
                b"POST /x HTTP/1.1\r\nhost: a\r\nx-forwarded-for: 203.0.113.1\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n")
        began, served, gone = time.monotonic(), None, None
        while (served is None or gone is None) and time.monotonic() - began < seconds:
            for client in slow:
                try:
                    client.sendall(b"1\r\na\r\n")
                except OSError:
                    pass
            if served is None:
                with gateway.connect() as honest:
                    honest.sendall(
                        b"POST /x HTTP/1.1\r\nhost: a\r\nx-forwarded-for: 203.0.113.2\r\ncontent-length: 1\r\n\r\na")
                    if honest.recv(100).startswith(b"HTTP/1.1 200"):
                        served = round(time.monotonic() - began, 1)
            if gateway.metric("rig_proxied_requests_in_progress") == 0:
                gone = round(time.monotonic() - began, 1)
            time.sleep(1)
        return {"served_after": served, "seconds": gone}


def subscriptions(binaries, seconds):
    """Takes everything that the limits allow of conditions on one event type; the values differ, so that nothing is shared."""
    extractors = {"t": {"f": {"stable_field_index": 1, "event": {"json_pointer": "/data/f"}}}}
    with Gateway(binaries, EXTRACTORS=json.dumps(extractors), MAX_CONNECTIONS_PER_MINUTE="100000") as gateway:
        streams, answers = [], {}
        for number in range(40):
            stream = gateway.connect()
            stream.sendall(b"GET /_rig/v1/connection/sse HTTP/1.1\r\nhost: a\r\n\r\n")
            received = b""
            while not (found := re.search(rb'"connection_token":"([^"]+)"', received)):
                received += stream.recv(1 << 16)
            streams.append(stream)
            conditions = [{"f": f"{number}-{value}"} for value in range(10_000)]
            request = urllib.request.Request(
                f"http://127.0.0.1:{gateway.inbound}/_rig/v1/connection/sse/{found[1].decode()}/subscriptions",
                json.dumps({"subscriptions": [{"eventType": "t", "oneOf": conditions}]}).encode(),
                {"content-type": "application/json"}, method="PUT")
            try:
                with urllib.request.urlopen(request, timeout=seconds) as answer:
                    status = answer.status
            except urllib.error.HTTPError as error:
                status = error.code
            answers[status] = answers.get(status, 0) + 1
        for number in range(100):
            event = {"specversion": "1.0", "type": "t", "source": "/b", "id": str(number), "data": {"f": f"{number % 40}-1"}}
            urllib.request.urlopen(urllib.request.Request(
                f"http://127.0.0.1:{gateway.management}/v3/messages", json.dumps(event).encode(),
                {"content-type": "application/cloudevents+json"})).close()
        turn = gateway.metric('rig_turn_longest_seconds{worker="connections.0"}')
        return {"longest_turn_ms": round(turn * 1000, 2), "answers": answers}


CASES = {
    "uploads-h2": lambda binaries, seconds: holding(binaries, uploads_h2, seconds),
    "uploads-h1": lambda binaries, seconds: holding(binaries, uploads_h1, seconds),
    "messages": lambda binaries, seconds: holding(binaries, messages, seconds),
    "slow-uploads": slow_uploads,
    "subscriptions": subscriptions,
}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("binaries")
    parser.add_argument("--seconds", type=float, default=90)
    parser.add_argument("--only", choices=CASES)
    options = parser.parse_args()
    for name, case in CASES.items():
        if options.only in (None, name):
            print(json.dumps({"case": name} | case(options.binaries, options.seconds)), flush=True)


main()
