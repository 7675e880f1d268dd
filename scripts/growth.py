#!/usr/bin/env python3
"""Does the gateway grow? Starts it with rig-devbroker, sends 100,000 events, half of them by HTTP and half through Kafka, to
clients of all transports, and looks at the private memory of every process on the way. Fails if a process has grown by more than --allowed-kb between the first 20,000
events (caches and rings are warm then) and the last, if an event is missing
(a long-polling client that is told how many it has lost counts as told), or if a sanitizer has reported something.

    growth.py BIN_DIRECTORY [--events N] [--allowed-kb K]

Standard library only, and kcat. The rings are small, so that their memory is all in use after the warm-up.
"""

import argparse
import base64
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse

SUBSCRIPTIONS = [{"eventType": "growth"}]
WARM_UP_SHARE = 0.2
BATCH = 125


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class HTTPConnection:
    def __init__(self, port):
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.file = self.socket.makefile("rb")

    def send(self, method, path, headers=(), body=b""):
        head = f"{method} {path} HTTP/1.1\r\nhost: localhost\r\n" + "".join(f"{n}: {v}\r\n" for n, v in headers)
        self.socket.sendall(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
        return self.answer()

    def answer(self):
        status = int(self.file.readline().split()[1])
        fields = {}
        while line := self.file.readline().strip():
            name, value = line.decode().split(":", 1)
            fields.setdefault(name.lower(), []).append(value.strip())
        length = int(fields.get("content-length", ["0"])[0]) if status != 101 else 0
        return status, fields, self.file.read(length)


def query(extra=None):
    return urllib.parse.urlencode({"subscriptions": json.dumps(SUBSCRIPTIONS), **(extra or {})})


class Client(threading.Thread):
    """Counts the events that it gets."""

    def __init__(self, port):
        super().__init__(daemon=True)
        self.port = port
        self.seen = 0
        self.start()

    def run(self):
        try:
            self.receive()
        except (OSError, IndexError):
            # The gateway has ended. Whether that was too early is told by `seen`.
            pass


class SSEClient(Client):
    def receive(self):
        stream = socket.create_connection(("127.0.0.1", self.port))
        stream.sendall(f"GET /_rig/v1/connection/sse?{query()} HTTP/1.1\r\nhost: localhost\r\n\r\n".encode())
        rest = b""
        while received := stream.recv(1 << 16):
            data = rest + received
            self.seen += data.count(b"\nevent: growth\n")
            # What may be the beginning of the marker is looked at again.
            rest = data[-14:] if not data.endswith(b"\nevent: growth\n") else b""


class WebSocketClient(Client):
    def receive(self):
        connection = HTTPConnection(self.port)
        headers = [("connection", "Upgrade"), ("upgrade", "websocket"), ("sec-websocket-version", "13"),
                   ("sec-websocket-key", base64.b64encode(os.urandom(16)).decode())]
        connection.send("GET", f"/_rig/v1/connection/ws?{query()}", headers)
        while head := connection.file.read(2):
            length = head[1] & 0x7F
            if length == 126:
                length = int.from_bytes(connection.file.read(2), "big")
            elif length == 127:
                length = int.from_bytes(connection.file.read(8), "big")
            payload = connection.file.read(length)
            if head[0] & 0x0F == 1 and b'"/growth"' in payload:
                self.seen += 1
            elif head[0] & 0x0F == 9:
                connection.socket.sendall(bytes([0x8A, 0x80 | len(payload), 0, 0, 0, 0]) + payload)


class LongPollClient(Client):
    def receive(self):
        path = "/_rig/v1/connection/longpolling"
        connection = HTTPConnection(self.port)
        _, fields, _ = connection.send("GET", f"{path}?{query()}")
        while True:
            cookie = "; ".join(value.split(";")[0] for value in fields["set-cookie"])
            status, fields, body = connection.send("GET", path, [("cookie", cookie)])
            if status != 200:
                return
            for event in json.loads(body)["events"]:
                if event["type"] == "growth":
                    self.seen += 1
                elif event["type"] == "rig.events_lost":
                    self.seen += event["data"]["count"]


def private_kb(pid):
    with open(f"/proc/{pid}/smaps_rollup") as file:
        return sum(int(line.split()[1]) for line in file if line.startswith(("Private_Dirty:", "Private_Clean:")))


def wait_for(what, condition, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise SystemExit(f"not within {seconds} s: {what}")
        time.sleep(0.005)


def ready(port):
    try:
        return HTTPConnection(port).send("GET", "/readyz")[0] == 200
    except OSError:
        return False


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory")
    parser.add_argument("--events", type=int, default=100_000)
    parser.add_argument("--allowed-kb", type=int, default=2048)
    options = parser.parse_args()
    inbound, management = free_port(), free_port()
    broker = subprocess.Popen([f"{options.directory}/rig-devbroker", "--die-with-parent"], stdout=subprocess.PIPE,
                              stderr=subprocess.DEVNULL, text=True)
    brokers = broker.stdout.readline().strip()
    settings = dict(os.environ, INBOUND_PORT=str(inbound), API_HTTP_PORT=str(management), CONNECTION_WORKERS="2",
                    EVENT_RING_BYTES="1048576", STREAMS_RING_BYTES="1048576", MAX_EVENT_BYTES="65536",
                    LONGPOLLING_MAX_EVENTS="5000", LOG_FMT="json", KAFKA_BROKERS=brokers,
                    KAFKA_PROPERTIES="fetch.wait.max.ms=20")
    with tempfile.TemporaryFile("w+") as log:
        gateway = subprocess.Popen([f"{options.directory}/rig-supervisor"], env=settings, stdout=log, stderr=log)
        try:
            wait_for("the gateway is ready", lambda: ready(management))
            clients = [kind(inbound) for kind in (SSEClient, WebSocketClient, LongPollClient) for _ in range(3)]
            wait_for("Kafka is read", lambda: b"rig_kafka_consumer_lag{" in metrics(management))
            grown = run(options, management, brokers, gateway.pid, clients)
        finally:
            gateway.send_signal(signal.SIGTERM)
            status = gateway.wait(60)
            broker.kill()
            log.seek(0)
            text = log.read()
        reports = re.findall(r".*(?:ERROR: \w*Sanitizer|runtime error).*", text)
    for report in reports:
        print(report)
    if status != 0 or reports or grown:
        print(text[-4000:], file=sys.stderr)
        raise SystemExit(f"exit status {status}, {len(reports)} sanitizer reports, grown: {grown or 'nothing'}")
    print(f"no growth over {options.events} events")


def metrics(management):
    return HTTPConnection(management).send("GET", "/metrics")[2]


def run(options, management, brokers, supervisor, clients):
    children = subprocess.run(["pgrep", "-P", str(supervisor)], capture_output=True, text=True, check=True)
    processes = [supervisor] + [int(pid) for pid in children.stdout.split()]
    publisher = HTTPConnection(management)
    # Connections open in their own time: an event that everybody gets says that they have.
    published = 0

    events = [{"specversion": "1.0", "type": "growth", "source": "/growth", "id": str(number), "data": "x" * 200}
              for number in range(BATCH)]

    def publish_to_kafka():
        records = "".join(json.dumps(event) + "\n" for event in events)
        subprocess.run(["kcat", "-P", "-b", brokers, "-t", "rig"], input=records, text=True, check=True)

    def publish_by_http():
        kind = [("content-type", "application/cloudevents-batch+json")]
        while (status := publisher.send("POST", "/v3/messages", kind, json.dumps(events).encode())[0]) == 503:
            time.sleep(0.01)
        if status != 202:
            raise SystemExit(f"publishing: {status}")

    def connections():
        lines = metrics(management).decode().splitlines()
        return sum(float(line.split()[-1]) for line in lines if line.startswith("rig_connections{"))

    wait_for("all clients are connected", lambda: connections() == len(clients))
    base = [client.seen for client in clients]
    before = {}
    while published < options.events:
        publish_by_http()
        publish_to_kafka()
        published += 2 * BATCH
        # No client may fall so far behind that it is closed.
        wait_for("clients keep up", lambda: all(c.seen - b > published - 2000 for c, b in zip(clients, base)))
        if not before and published >= options.events * WARM_UP_SHARE:
            before = {pid: private_kb(pid) for pid in processes}
    wait_for("every client has every event", lambda: all(c.seen - b >= published for c, b in zip(clients, base)))
    grown = []
    for pid in processes:
        name = os.path.basename(os.readlink(f"/proc/{pid}/exe"))
        after = private_kb(pid)
        print(f"{name} ({pid}): {before[pid]} KB after {int(options.events * WARM_UP_SHARE)} events, {after} KB after {published}")
        if after - before[pid] > options.allowed_kb:
            grown.append(name)
    return grown


if __name__ == "__main__":
    main()
