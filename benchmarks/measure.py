#!/usr/bin/env python3
"""Measurements of a running gateway that need more than a load generator. Standard library only, but for `latency`,
which produces with confluent-kafka.

    measure.py latency  --inbound PORT --broker HOST:PORT --topic T [--events N] [--rate R]
    measure.py matching --inbound PORT --management PORT --worker PID --subscriptions N [--events N]
    measure.py addressed --inbound PORT --management PORT --worker PID --secret S --users N [--events N]
    measure.py wakeups  PID [PID ...] [--seconds S]

Each prints one line of JSON. `latency`: from the call that produces a record to the byte at the client. `matching`: CPU
time of the connection worker per event with 10 matches among N constrained subscriptions. `addressed`: the same per event
addressed to one of N users, each followed by one of 1,000 connections. `wakeups`: voluntary context switches per second
of each process, over all of its threads.
"""

import argparse
import base64
import glob
import hashlib
import hmac
import json
import os
import socket
import statistics
import sys
import time
import urllib.parse


class EventStream:
    """One Server-Sent Events client over a plain socket."""

    def __init__(self, port, subscriptions, more=""):
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.settimeout(30)
        query = urllib.parse.urlencode({"subscriptions": json.dumps(subscriptions)}) + (more and "&" + more)
        self.socket.sendall(f"GET /_rig/v1/connection/sse?{query} HTTP/1.1\r\nhost: localhost\r\n\r\n".encode())
        self.buffer = b""
        self.token = None
        while self.token is None:
            name, data = self.event()
            if name == "rig.connection.create":
                self.token = json.loads(data)["data"]["connection_token"]
        self.event()

    def event(self):
        """The next event that has a name: (name, data)."""
        while True:
            while b"\n\n" not in self.buffer:
                received = self.socket.recv(1 << 16)
                if not received:
                    raise SystemExit("the gateway closed the stream")
                self.buffer += received
            record, self.buffer = self.buffer.split(b"\n\n", 1)
            fields = dict(line.split(b": ", 1) for line in record.split(b"\n") if b": " in line)
            if b"event" in fields:
                return fields[b"event"].decode(), fields.get(b"data", b"").decode()


class HTTPClient:
    """Requests over one connection that stays open."""

    def __init__(self, port):
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.file = self.socket.makefile("rb")

    def send(self, method, path, body, content_type):
        payload = body.encode()
        head = f"{method} {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: {content_type}\r\n"
        self.socket.sendall(f"{head}content-length: {len(payload)}\r\n\r\n".encode() + payload)
        status = int(self.file.readline().split()[1])
        length = 0
        while True:
            line = self.file.readline().strip().lower()
            if not line:
                break
            if line.startswith(b"content-length:"):
                length = int(line.split(b":")[1])
        answer = self.file.read(length)
        if status not in (202, 204):
            raise SystemExit(f"{method} {path}: {status} {answer.decode()[:300]}")


def latency(options):
    stream = EventStream(options.inbound, [{"eventType": "latency"}])
    # kcat reads its input in blocks, so it can't publish single events.
    from confluent_kafka import Producer

    producer = Producer({"bootstrap.servers": options.broker, "linger.ms": 0})

    def publish(number):
        event = {"specversion": "1.0", "type": "latency", "source": "/bench", "id": str(number)}
        event["data"] = time.monotonic_ns()
        producer.produce(options.topic, json.dumps(event).encode())
        producer.poll(0)

    def receive():
        name, data = stream.event()
        while name != "latency":
            name, data = stream.event()
        return (time.monotonic_ns() - json.loads(data)["data"]) / 1e6

    warm_up = 20
    for number in range(warm_up):
        publish(number)
        receive()
    times = []
    for number in range(options.events):
        publish(warm_up + number)
        times.append(receive())
        time.sleep(1 / options.rate)
    producer.flush(30)
    times.sort()
    result = {"events": len(times), "median_ms": round(statistics.median(times), 2)}
    result["p99_ms"] = round(times[int(len(times) * 0.99)], 2)
    print(json.dumps(result))


def cpu_seconds(pid):
    """Time on a processor, over all threads. The times in /proc/PID/stat are sampled by ticks: too coarse for short turns."""
    total = 0
    for path in glob.glob(f"/proc/{pid}/task/*/schedstat"):
        with open(path) as file:
            total += int(file.read().split()[0])
    return total / 1e9


def matching(options):
    """Ten connections match every event; all other subscriptions ask for other values of the same field."""
    matches, per_connection = 10, 1000
    streams = []
    control = HTTPClient(options.inbound)
    for index in range(max(matches, options.subscriptions // per_connection)):
        stream = EventStream(options.inbound, [])
        count = min(per_connection, options.subscriptions // max(matches, options.subscriptions // per_connection))
        values = [f"v-{index}-{number}" for number in range(count)]
        if index < matches:
            values[0] = "wanted"
        one = [{"eventType": "match", "oneOf": [{"name": value}]} for value in values]
        path = f"/_rig/v1/connection/sse/{stream.token}/subscriptions"
        control.send("PUT", path, json.dumps({"subscriptions": one}), "application/json")
        stream.event()
        if index < matches:
            streams.append(stream)
        else:
            stream.socket.settimeout(None)
            idle.append(stream)
    publisher = HTTPClient(options.management)
    event = json.dumps(
        {"specversion": "1.0", "type": "match", "source": "/bench", "id": "1", "data": {"name": "wanted"}})
    for _ in range(200):
        publisher.send("POST", "/v3/messages", event, "application/cloudevents+json")
    before = cpu_seconds(options.worker)
    for _ in range(options.events):
        publisher.send("POST", "/v3/messages", event, "application/cloudevents+json")
        for stream in streams:
            stream.socket.setblocking(False)
            try:
                stream.socket.recv(1 << 16)
            except BlockingIOError:
                pass
    used = cpu_seconds(options.worker) - before
    print(json.dumps({"subscriptions": options.subscriptions, "us_per_event": round(used / options.events * 1e6, 2)}))


idle = []


def token(secret, claims):
    """A JSON Web Token by HS256."""
    def encoded(data):
        return base64.urlsafe_b64encode(data).rstrip(b"=")

    text = encoded(b'{"alg":"HS256"}') + b"." + encoded(json.dumps(claims).encode())
    return (text + b"." + encoded(hmac.new(secret.encode(), text, hashlib.sha256).digest())).decode()


def addressed(options):
    """A thousand connections share the users, who have one follower each. Events go to users of the same 50 connections
    in turn, however many users there are: what differs between two runs is the number of users alone."""
    connections, receivers = 1000, 50
    jwt = token(options.secret, {"user": "bench", "roles": ["bench"], "exp": int(time.time()) + 86400})
    streams = []
    for index in range(connections):
        names = [f"u{number}" for number in range(index, options.users, connections)]
        stream = EventStream(options.inbound, [], "&".join(["jwt=" + jwt] + ["users[]=" + name for name in names]))
        streams.append(stream)
    targets = [number for number in range(options.users) if number % connections < receivers]
    publisher = HTTPClient(options.management)
    event = {"specversion": "1.0", "type": "addressed", "source": "/bench"}

    def publish(numbers):
        for number in numbers:
            target = targets[number % len(targets)]
            text = json.dumps({**event, "id": str(number), "user": f"u{target}"})
            publisher.send("POST", "/v3/messages", text, "application/cloudevents+json")
            _, data = streams[target % connections].event()
            if json.loads(data).get("id") != str(number):
                raise SystemExit(f"event {number} expected, found {data}")

    warm_up = 500
    publish(range(warm_up))
    before = cpu_seconds(options.worker)
    publish(range(warm_up, warm_up + options.events))
    used = cpu_seconds(options.worker) - before
    print(json.dumps({"users": options.users, "us_per_event": round(used / options.events * 1e6, 2)}))


def wakeups(options):
    def switches(pid):
        total = 0
        for status in glob.glob(f"/proc/{pid}/task/*/status"):
            with open(status) as file:
                for line in file:
                    if line.startswith("voluntary_ctxt_switches:"):
                        total += int(line.split()[1])
        return total

    def name(pid):
        return os.path.basename(os.readlink(f"/proc/{pid}/exe"))

    before = {pid: switches(pid) for pid in options.pids}
    time.sleep(options.seconds)
    rates = [{"process": name(pid), "per_second": round((switches(pid) - before[pid]) / options.seconds, 2)}
             for pid in options.pids]
    print(json.dumps(rates))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    command = commands.add_parser("latency")
    command.add_argument("--inbound", type=int, required=True)
    command.add_argument("--broker", required=True)
    command.add_argument("--topic", default="rig")
    command.add_argument("--events", type=int, default=300)
    command.add_argument("--rate", type=float, default=50)
    command.set_defaults(run=latency)
    command = commands.add_parser("matching")
    command.add_argument("--inbound", type=int, required=True)
    command.add_argument("--management", type=int, required=True)
    command.add_argument("--worker", type=int, required=True)
    command.add_argument("--subscriptions", type=int, required=True)
    command.add_argument("--events", type=int, default=5000)
    command.set_defaults(run=matching)
    command = commands.add_parser("addressed")
    command.add_argument("--inbound", type=int, required=True)
    command.add_argument("--management", type=int, required=True)
    command.add_argument("--worker", type=int, required=True)
    command.add_argument("--secret", required=True)
    command.add_argument("--users", type=int, required=True)
    command.add_argument("--events", type=int, default=5000)
    command.set_defaults(run=addressed)
    command = commands.add_parser("wakeups")
    command.add_argument("pids", type=int, nargs="+")
    command.add_argument("--seconds", type=float, default=10)
    command.set_defaults(run=wakeups)
    options = parser.parse_args()
    options.run(options)


if __name__ == "__main__":
    sys.exit(main())
