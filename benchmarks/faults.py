#!/usr/bin/env python3
"""Some minutes of faults under load, and what each client saw of them. Standard library only; needs kcat and noida-db (a Kafka server that
keeps its log over a restart; in .build-python/bin after scripts/test).

    faults.py BIN --broker .build-python/bin/noida-db [--seconds S] [--sse N] [--websocket N] [--seed N] [--keep-log]

BIN is the directory of the gateway's programs. N event streams and WebSockets (with cursors) subscribe, and come back with their cursor
whenever they are cut off. Meanwhile events are published to Kafka and by HTTP, and every few seconds one of these happens: kill -9 of a
random worker of any kind, the broker killed and started again. Once each, unless --keep-log is given: the log loses its tail, and the log
is thrown away and begun anew, both while a connection worker stands still and the gateway has no room for what is in the log; and it is
begun anew when all of it has arrived.

At the end the log is read back, and compared with what every client has received. One line of JSON:

    lost          events that a client never got and wasn't told of. `rig.events_lost` with a count tells of so many events of its topic,
                  one without of those that are missing at its place
    missing       events that a client never got, told or not; as many at least as the lost logs had: else nothing was tried
    doubled       events that it got more often than the log has them, or twice if the log has lost them
    disordered    events that it got before one that stands earlier in the log, or was accepted earlier by HTTP
    told          how often a client was told `rig.events_lost`

Exit status 1 if lost, doubled or disordered isn't 0, or missing is although logs were lost. A POST that got no answer may have been accepted or not: it counts only if doubled or
disordered. Nothing else should be going on meanwhile: 700 clients are one Python process.
"""

import argparse
import asyncio
import base64
import bisect
import collections
import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.parse

TOPIC, TYPE = "rig", "bench"
# What the streams worker has room for, and events that are more.
RING_BYTES, BURST, BURST_PADDING = 262144, 400, 1000
SUBSCRIPTIONS = urllib.parse.quote(json.dumps([{"eventType": TYPE}]))
KEY = base64.b64encode(b"0123456789abcdef").decode()


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def event(source, number, padding=0):
    return json.dumps({"specversion": "1.0", "type": TYPE, "source": source, "id": str(number), "data": "x" * padding})


class Client:
    """What one client has received, in its order: (source, number), and ("told", (topic, count)) where it was told of a loss."""

    def __init__(self, port):
        self.port = port
        self.cursor = None
        self.seen = []
        self.of_kafka = 0
        self.told = 0
        self.connections = 0
        self.is_open = asyncio.Event()

    async def run(self):
        while True:
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", self.port, limit=1 << 22)
                try:
                    await self.follow(reader, writer)
                finally:
                    writer.close()
            except (OSError, asyncio.IncompleteReadError, ValueError):
                pass
            await asyncio.sleep(random.uniform(0.2, 1))

    def take(self, text):
        received = json.loads(text)
        self.cursor = received.get("rigcursor", self.cursor)
        kind = received["type"]
        if kind == "rig.connection.create":
            self.connections += 1
            self.is_open.set()
        elif kind == "rig.events_lost":
            self.told += 1
            self.seen.append(("told", (received["data"].get("topic"), received["data"]["count"])))
        elif kind == TYPE:
            self.seen.append((received["source"], int(received["id"])))
            self.of_kafka += received["source"] == "kafka"

    async def head(self, reader):
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        if " 200 " not in head.split("\r\n")[0] and " 101 " not in head.split("\r\n")[0]:
            raise ValueError(head)
        return head


class EventStream(Client):
    async def follow(self, reader, writer):
        cursor = f"last-event-id: {self.cursor}\r\n" if self.cursor else ""
        writer.write(f"GET /_rig/v1/connection/sse?subscriptions={SUBSCRIPTIONS} HTTP/1.1\r\nhost: a\r\n{cursor}\r\n".encode())
        is_chunked = "transfer-encoding: chunked" in await self.head(reader)
        text = b""
        while True:
            if is_chunked:
                length = int(await reader.readuntil(b"\r\n"), 16)
                piece = (await reader.readexactly(length + 2))[:-2]
            else:
                piece = await reader.read(1 << 16)
            if not piece:
                return
            text += piece
            while b"\n\n" in text:
                block, text = text.split(b"\n\n", 1)
                fields = dict(line.split(": ", 1) for line in block.decode().split("\n") if ": " in line)
                if "data" in fields:
                    self.take(fields["data"])
                self.cursor = fields.get("id", self.cursor)


class WebSocket(Client):
    async def follow(self, reader, writer):
        cursor = urllib.parse.quote(self.cursor or "")
        writer.write(
            f"GET /_rig/v1/connection/ws?subscriptions={SUBSCRIPTIONS}&lastEventId={cursor}&cursors=true HTTP/1.1\r\nhost: a\r\n"
            f"connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: {KEY}\r\n\r\n".encode())
        await self.head(reader)
        while True:
            first, second = await reader.readexactly(2)
            length = second & 127
            if length > 125:
                length = int.from_bytes(await reader.readexactly(2 if length == 126 else 8), "big")
            payload = await reader.readexactly(length)
            if first & 15 == 1:
                self.take(payload)
            elif first & 15 == 8:
                return
            elif first & 15 == 9:
                writer.write(bytes([0x8A, 0x80 | len(payload), 0, 0, 0, 0]) + payload)


class Broker:
    def __init__(self, program, directory):
        self.program, self.directory, self.port = os.path.abspath(program), directory, free_port()
        self.epochs = []
        self.process = None
        self.start()

    @property
    def address(self):
        return f"127.0.0.1:{self.port}"

    def start(self):
        self.process = subprocess.Popen(
            [self.program, "start", "--only", "kafka", "--kafka-port", str(self.port), "--data-dir", self.directory],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
        while self.kcat(["-L"]).returncode:
            time.sleep(0.1)

    def kill(self, number=signal.SIGKILL):
        os.killpg(self.process.pid, number)
        self.process.wait()

    def kcat(self, arguments, text=None):
        return subprocess.run(
            ["kcat", "-b", self.address, "-m", "5", *arguments], input=text, capture_output=True, text=True, timeout=60)

    def publish(self, numbers, padding=0):
        lines = "\n".join(event("kafka", number, padding) for number in numbers) + "\n"
        return self.kcat(["-P", "-t", TOPIC, "-p", "0", "-X", "message.timeout.ms=4000"], lines).returncode == 0

    def log(self):
        text = self.kcat(["-C", "-t", TOPIC, "-p", "0", "-o", "beginning", "-e", "-q"]).stdout
        return [int(json.loads(line)["id"]) for line in text.splitlines() if line]

    def forget(self):
        """Throws the log away; the next one begins at offset 0 again."""
        self.epochs.append(self.log())
        self.kill()
        subprocess.run([self.program, "reset", "kafka", "--yes", "--data-dir", self.directory], capture_output=True, check=True)
        self.start()

    def lose_tail(self):
        """Takes the last batch of a producer out of the log, as a leader does that crashed before others had it."""
        before = self.log()
        # So that all of the log is in its file.
        self.kill(signal.SIGTERM)
        path = os.path.join(self.directory, "kafka.json")
        with open(path) as file:
            everything = json.load(file)
        partition = next(entry for name, entry in everything["topics"] if name == TOPIC)["partitions"][0][1]
        partition["record_batches"].sort()
        last = partition["record_batches"].pop()
        partition["high_watermark"] = last[0]
        partition["producer_seqs"] = []
        with open(path, "w") as file:
            json.dump(everything, file)
        self.start()
        # The same numbers are never published again: what is gone counts as a log of its own.
        self.epochs.append(before[len(self.log()):])


class Run:
    def __init__(self, options):
        self.options = options
        self.work = tempfile.TemporaryDirectory()
        self.broker = Broker(options.broker, os.path.join(self.work.name, "broker"))
        self.broker.publish([0])
        self.inbound, self.management = free_port(), free_port()
        environment = dict(
            os.environ, INBOUND_PORT=str(self.inbound), API_HTTP_PORT=str(self.management), BIND_ADDRESS="127.0.0.1",
            CONNECTION_WORKERS="2", LOG_LEVEL="error", KAFKA_BROKERS=self.broker.address, KAFKA_SOURCE_TOPICS=TOPIC,
            STREAMS_RING_BYTES=str(RING_BYTES), MAX_EVENT_BYTES=str(RING_BYTES // 16),
            RESTART_INTENSITY="1000", MAX_CONNECTIONS_PER_MINUTE="1000000", STATE_DIR=os.path.join(self.work.name, "state"))
        os.mkdir(environment["STATE_DIR"])
        self.log = open(os.path.join(self.work.name, "gateway.log"), "wb")
        self.supervisor = subprocess.Popen(
            [os.path.join(os.path.abspath(options.bin), "rig-supervisor")], env=environment, stdout=self.log, stderr=self.log)
        self.clients = []
        self.accepted, self.doubtful = [], set()
        self.faults = {}
        self.is_over = False
        self.next_number = 1
        self.lost_logs = 0
        # One at a time: the log isn't read back while it is written.
        self.log_lock = asyncio.Lock()

    def workers(self):
        children = open(f"/proc/{self.supervisor.pid}/task/{self.supervisor.pid}/children").read().split()
        return [(int(pid), open(f"/proc/{pid}/comm").read().strip()) for pid in children]

    def count(self, fault):
        self.faults[fault] = self.faults.get(fault, 0) + 1

    async def publish_kafka(self):
        while not self.is_over:
            async with self.log_lock:
                await self.publish_records(20)
            await asyncio.sleep(0.4)

    async def publish_records(self, count, padding=0):
        numbers = range(self.next_number, self.next_number + count)
        self.next_number += count
        return await asyncio.to_thread(self.broker.publish, numbers, padding)

    async def publish_http(self):
        number = 0
        while not self.is_over:
            number += 1
            status = None
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", self.management)
                body = event("http", number)
                writer.write(
                    f"POST /v3/messages HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-type: application/cloudevents+json\r\n"
                    f"content-length: {len(body)}\r\n\r\n{body}".encode())
                answer = await asyncio.wait_for(reader.read(), 15)
                status = int(answer.split(b" ", 2)[1]) if answer else None
                writer.close()
            except (OSError, asyncio.TimeoutError, IndexError, ValueError):
                pass
            if status == 202:
                self.accepted.append(number)
            elif status is None:
                self.doubtful.add(number)
            await asyncio.sleep(0.03)

    async def fault(self):
        chosen = random.random()
        if chosen < 0.75:
            pid, name = random.choice(self.workers())
            os.kill(pid, signal.SIGKILL)
            return self.count(f"kill {name}")
        await asyncio.to_thread(self.broker.kill)
        await asyncio.sleep(random.uniform(0.5, 4))
        await asyncio.to_thread(self.broker.start)
        self.count("broker killed")

    async def forget_log(self):
        async with self.log_lock:
            await self.settle()
            await asyncio.to_thread(self.broker.forget)
        self.count("log begun anew")

    async def lose_unread(self, name, lose):
        """Has the log lose records that the gateway knows of and has no room for."""
        async with self.log_lock:
            await self.settle()
            stopped = random.choice([pid for pid, name in self.workers() if name == "rig-connections"])
            os.kill(stopped, signal.SIGSTOP)
            try:
                # The tail that is lost is the last batch.
                if await self.publish_records(BURST, BURST_PADDING) and await self.publish_records(20):
                    # It looks at the end of the log once per second.
                    await asyncio.sleep(2.5)
                    await asyncio.to_thread(lose)
                    self.count(name)
                    self.lost_logs += 1
            finally:
                os.kill(stopped, signal.SIGCONT)
            # What is lost is known to the streams worker alone until it has told it.
            await self.settle()

    async def settle(self, seconds=60):
        """Until no client has got anything from Kafka for a while."""
        before, quiet, end = -1, 0, time.monotonic() + seconds
        while quiet < 5 and time.monotonic() < end:
            now = sum(client.of_kafka for client in self.clients)
            quiet = quiet + 1 if now == before else 0
            before = now
            await asyncio.sleep(1)

    async def run(self):
        while not await self.is_ready():
            await asyncio.sleep(0.1)
        self.clients = [EventStream(self.inbound) for _ in range(self.options.sse)]
        self.clients += [WebSocket(self.inbound) for _ in range(self.options.websocket)]
        tasks = [asyncio.create_task(client.run()) for client in self.clients]
        await asyncio.gather(*(client.is_open.wait() for client in self.clients))
        publishers = [asyncio.create_task(self.publish_kafka()), asyncio.create_task(self.publish_http())]
        begun = time.monotonic()
        losses = [
            (0.2, lambda: self.lose_unread("tail lost unread", self.broker.lose_tail)),
            (0.4, lambda: self.lose_unread("log begun anew unread", self.broker.forget)),
            (0.6, self.forget_log),
        ]
        if self.options.keep_log:
            losses = []
        while losses or time.monotonic() < begun + self.options.seconds:
            await asyncio.sleep(random.uniform(2, 5))
            if losses and time.monotonic() > begun + losses[0][0] * self.options.seconds:
                await losses.pop(0)[1]()
            await self.fault()
        self.is_over = True
        await asyncio.gather(*publishers)
        await self.settle()
        self.broker.epochs.append(self.broker.log())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def is_ready(self):
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", self.management)
            writer.write(b"GET /readyz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
            answer = await reader.read()
            writer.close()
            return answer.startswith(b"HTTP/1.1 200")
        except OSError:
            return False

    def judge(self):
        kafka = [number for epoch in self.broker.epochs for number in epoch if number > 0]
        names = ("connections", "events", "lost", "missing", "doubled", "disordered", "told")
        totals = {"clients": len(self.clients)} | dict.fromkeys(names, 0)
        for client in self.clients:
            totals["connections"] += client.connections
            totals["events"] += len(client.seen) - client.told
            totals["told"] += client.told
            for source, expected, may_be in (("kafka", kafka, set()), ("http", self.accepted, self.doubtful)):
                seen = [number for name, number in client.seen if name == source]
                missing = set(expected) - set(seen)
                totals["missing"] += len(missing)
                totals["lost"] += untold(missing, source, client.seen)
                # A broker that is killed may lose what it has given already: once is right for what its log no longer has.
                allowed = collections.Counter(expected) | collections.Counter(set(seen) | may_be)
                totals["doubled"] += (collections.Counter(seen) - allowed).total()
                first = list(dict.fromkeys(seen))
                totals["disordered"] += sum(1 for a, b in zip(first, first[1:]) if b < a)
        counts = {"in_log": len(kafka), "accepted": len(self.accepted), "doubtful": len(self.doubtful)}
        return totals | {"faults": self.faults, "logs_lost_unread": self.lost_logs} | counts

    def close(self):
        self.supervisor.send_signal(signal.SIGTERM)
        try:
            self.supervisor.wait(40)
        except subprocess.TimeoutExpired:
            self.supervisor.kill()
        self.broker.kill()
        self.log.close()
        if self.options.log:
            os.replace(self.log.name, self.options.log)
        self.work.cleanup()


def untold(missing, source, seen):
    """How many of the missing events of a source no `rig.events_lost` covers; `seen` as a client has it."""
    missing = sorted(missing)
    uncovered, highest, counted, anything = 0, 0, 0, False
    for name, value in seen + [(source, float("inf"))]:
        if name == "told":
            topic, count = value
            if count is None or topic is None:
                anything = True
            elif source == "kafka":
                counted += count
        elif name == source and value > highest:
            hole = bisect.bisect_left(missing, value) - bisect.bisect_right(missing, highest)
            if not anything:
                covered = min(hole, counted)
                counted -= covered
                uncovered += hole - covered
            highest, anything = value, False
    return uncovered


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bin")
    parser.add_argument("--broker", required=True)
    parser.add_argument("--seconds", type=float, default=180)
    parser.add_argument("--sse", type=int, default=500)
    parser.add_argument("--websocket", type=int, default=200)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--keep-log", action="store_true")
    parser.add_argument("--log", help="where the gateway's log is put")
    options = parser.parse_args()
    random.seed(options.seed)
    run = Run(options)
    try:
        asyncio.run(run.run())
    finally:
        run.close()
    result = run.judge() | {"seed": options.seed}
    print(json.dumps(result))
    is_untried = result["logs_lost_unread"] > 0 and result["missing"] == 0
    sys.exit(1 if result["lost"] or result["doubled"] or result["disordered"] or is_untried else 0)


main()
