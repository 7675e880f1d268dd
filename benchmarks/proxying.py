#!/usr/bin/env python3
"""Proxied requests of a running gateway, beside nginx and Caddy as reverse proxies of the same service. Standard library only;
needs nginx, wrk, curl, and caddy unless --caddy is empty.

    proxying.py requests --inbound PORT --management PORT [--caddy PATH] PID [PID ...]
    proxying.py transfer --inbound PORT --management PORT [--plot FILE.svg] PID [PID ...]

PIDs: all processes of the gateway. Each prints one line of JSON. `requests`: small GETs over 32 kept connections, alternately through
each proxy, per second of CPU time of all processes of the proxy; and the median latency of one connection, directly and through each.
`transfer`: 1 GiB down and up, bytes per CPU-second, down beside nginx in turn, and by how much the anonymous memory of the gateway's
processes had grown at most; the plot shows that memory over the time of all transfers.
"""

import argparse
import contextlib
import glob
import json
import os
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request

GIBIBYTE = 1 << 30
SERVICE, NGINX, CADDY, SINK = 24401, 24402, 24403, 24404


def cpu_seconds(pids):
    total = 0
    for pid in pids:
        for path in glob.glob(f"/proc/{pid}/task/*/schedstat"):
            with contextlib.suppress(OSError), open(path) as file:
                total += int(file.read().split()[0])
    return total / 1e9


def anonymous_bytes(pids):
    total = 0
    for pid in pids:
        with open(f"/proc/{pid}/status") as file:
            total += sum(int(line.split()[1]) * 1024 for line in file if line.startswith("RssAnon:"))
    return total


def family(pid):
    children = subprocess.run(["pgrep", "-P", str(pid)], capture_output=True, text=True).stdout.split()
    return [pid] + [int(child) for child in children]


def wait_for_port(port, deadline=30):
    end = time.monotonic() + deadline
    while True:
        try:
            return socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            if time.monotonic() > end:
                sys.exit(f"nothing listens on port {port}")
            time.sleep(0.05)


@contextlib.contextmanager
def running(command, port):
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for_port(port)
        yield process.pid
    finally:
        process.terminate()
        process.wait()


def nginx(directory, name, body):
    path = f"{directory}/{name}.conf"
    with open(path, "w") as file:
        file.write(f"""daemon off; worker_processes 1; pid {directory}/{name}.pid; error_log /dev/null; user root;
events {{ worker_connections 4096; }}
http {{ access_log off; keepalive_requests 100000000; sendfile on; client_max_body_size 0; client_body_temp_path {directory}/{name};
{body} }}""")
    return ["nginx", "-e", "/dev/null", "-c", path]


def service(directory):
    os.chmod(directory, 0o755)
    return nginx(directory, "service", f"""server {{ listen 127.0.0.1:{SERVICE} backlog=4096; root {directory};
location /small {{ default_type text/plain; return 200 "hello"; }} }}""")


def nginx_proxy(directory):
    return nginx(directory, "proxy", f"""upstream s {{ server 127.0.0.1:{SERVICE}; keepalive 64; }}
server {{ listen 127.0.0.1:{NGINX} backlog=4096; location / {{ proxy_pass http://s; proxy_http_version 1.1; proxy_set_header Connection "";
proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for; proxy_set_header X-Forwarded-Proto $scheme;
proxy_set_header X-Forwarded-Host $host; }} }}""")


def caddy_proxy(directory, executable):
    path = f"{directory}/Caddyfile"
    with open(path, "w") as file:
        file.write(f"{{\n admin off\n auto_https off\n}}\nhttp://127.0.0.1:{CADDY} {{\n"
                   f" reverse_proxy 127.0.0.1:{SERVICE}\n}}\n")
    return ["env", f"HOME={directory}", executable, "run", "--adapter", "caddyfile", "--config", path]


def define(options, port, method, path):
    definition = {
        "id": f"bench{port}{method}", "name": "bench", "auth_type": "none", "versioned": False,
        "version_data": {"default": {"endpoints": [{"id": "all", "method": method, "path_regex": path}]}},
        "proxy": {"use_env": False, "target_url": "http://127.0.0.1", "port": port}}
    request = urllib.request.Request(
        f"http://127.0.0.1:{options.management}/v3/apis", json.dumps(definition).encode(),
        {"content-type": "application/json"})
    urllib.request.urlopen(request, timeout=10).read()


def wrk(port, connections, seconds):
    text = subprocess.run(
        ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency", f"http://127.0.0.1:{port}/small"],
        capture_output=True, text=True, check=True).stdout
    if "Non-2xx" in text or "Socket errors" in text:
        sys.exit(f"port {port}: {text}")
    count = int(re.search(r"(\d+) requests in", text).group(1))
    value, unit = re.search(r"50%\s+([\d.]+)(us|ms|s)", text).groups()
    return count, float(value) * {"us": 1, "ms": 1e3, "s": 1e6}[unit]


def requests(options):
    with tempfile.TemporaryDirectory() as directory, contextlib.ExitStack() as stack:
        stack.enter_context(running(service(directory), SERVICE))
        proxies = {"rig": (options.inbound, options.pids)}
        proxies["nginx"] = (NGINX, family(stack.enter_context(running(nginx_proxy(directory), NGINX))))
        if options.caddy:
            proxies["caddy"] = (CADDY, family(stack.enter_context(running(caddy_proxy(directory, options.caddy), CADDY))))
        define(options, SERVICE, "GET", "/small")
        rates = {name: [] for name in proxies}
        for port, _ in proxies.values():
            wrk(port, 32, 1)
        for _ in range(options.rounds):
            for name, (port, pids) in proxies.items():
                before = cpu_seconds(pids)
                count, _ = wrk(port, 32, options.seconds)
                rates[name].append(count / (cpu_seconds(pids) - before))
        latencies = {name: [] for name in ["service", *proxies]}
        for _ in range(options.rounds):
            for name, (port, _) in [("service", (SERVICE, None)), *proxies.items()]:
                latencies[name].append(wrk(port, 1, 1)[1])
        print(json.dumps({
            **{f"{name}_per_cpu_s": round(statistics.median(values)) for name, values in rates.items()},
            **{f"{name}_us": round(statistics.median(values)) for name, values in latencies.items()}}))


def sink(listener):
    """Answers every PUT when its body, whose length is announced, has come."""
    buffer = bytearray(1 << 20)
    while True:
        try:
            client, _ = listener.accept()
        except OSError:
            return
        with client:
            head = b""
            while b"\r\n\r\n" not in head:
                head += client.recv(65536)
            head, _, rest = head.partition(b"\r\n\r\n")
            left = int(re.search(rb"(?i)content-length: *(\d+)", head).group(1)) - len(rest)
            while left > 0:
                count = client.recv_into(buffer)
                if not count:
                    break
                left -= count
            client.sendall(b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n")


class Growth:
    """The most that the anonymous memory of processes is above what it was at first, looked at every 20 ms."""

    def __init__(self, pids, samples):
        self.pids, self.samples, self.most, self.ended = pids, samples, 0, threading.Event()
        self.thread = threading.Thread(target=self.watch)

    def watch(self):
        first = anonymous_bytes(self.pids)
        while not self.ended.wait(0.02):
            now = anonymous_bytes(self.pids)
            self.samples.append((time.monotonic(), now))
            self.most = max(self.most, now - first)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.ended.set()
        self.thread.join()


def plot(path, transfers):
    """One line per transfer in an SVG; the vertical axis begins at 0."""
    width, height, left, top, bottom = 900, 320, 60, 30, 40
    first, last = transfers[0][1][0][0], transfers[-1][1][-1][0]
    most = max(value for _, samples in transfers for _, value in samples) * 1.2

    def x(when):
        return left + (when - first) / (last - first) * (width - left - 10)

    def y(value):
        return top + (1 - value / most) * (height - top - bottom)

    lines = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" font-family="sans-serif" font-size="12">',
             f'<rect width="{width}" height="{height}" fill="white"/>',
             '<text x="60" y="18">anonymous memory of all processes of the gateway, MB, while 1 GiB at a time passes through</text>']
    for step in range(5):
        value = most * step / 4
        lines.append(f'<path d="M{left} {y(value):.1f}H{width - 10}" stroke="#ddd"/>'
                     f'<text x="{left - 6}" y="{y(value) + 4:.1f}" text-anchor="end">{value / 1e6:.0f}</text>')
    for way, samples in transfers:
        points = " ".join(f"{x(when):.1f},{y(value):.1f}" for when, value in samples)
        color = "#06c" if way == "down" else "#c40"
        lines.append(f'<polyline fill="none" stroke="{color}" stroke-width="2" points="{points}"/>'
                     f'<text x="{x(samples[0][0]):.1f}" y="{height - 14}" fill="{color}">{way}</text>')
    with open(path, "w") as file:
        file.write("\n".join([*lines, "</svg>", ""]))


def download_rate(address, pids):
    """GB per CPU-second of `pids`, of one download."""
    before = cpu_seconds(pids)
    subprocess.run(["curl", "-sSf", "--max-time", "60", "-o", "/dev/null", address], check=True)
    return GIBIBYTE / (cpu_seconds(pids) - before) / 1e9


def transfer(options):
    listener = socket.create_server(("127.0.0.1", SINK))
    threading.Thread(target=sink, args=(listener,), daemon=True).start()
    result, transfers = {}, []
    with tempfile.TemporaryDirectory() as directory, running(service(directory), SERVICE), \
            running(nginx_proxy(directory), NGINX) as nginx_pid:
        path = f"{directory}/gibibyte"
        with open(path, "wb") as file:
            file.truncate(GIBIBYTE)
        define(options, SERVICE, "GET", "/gibibyte")
        define(options, SINK, "PUT", "/sink")
        base = f"http://127.0.0.1:{options.inbound}"
        ways = {"down": ["-o", "/dev/null", f"{base}/gibibyte"],
                "up": ["-o", "/dev/null", "-H", "expect:", "-T", path, f"{base}/sink"]}
        for way, arguments in ways.items():
            rates, growth, reference = [], 0, []
            for _ in range(options.rounds):
                if way == "down":
                    reference.append(download_rate(f"http://127.0.0.1:{NGINX}/gibibyte", family(nginx_pid)))
                before = cpu_seconds(options.pids)
                transfers.append((way, []))
                with Growth(options.pids, transfers[-1][1]) as watched:
                    subprocess.run(["curl", "-sSf", "--max-time", "60", *arguments], check=True)
                rates.append(GIBIBYTE / (cpu_seconds(options.pids) - before) / 1e9)
                growth = max(growth, watched.most)
            result[f"{way}_gb_per_cpu_s"] = round(statistics.median(rates), 2)
            result[f"{way}_growth_mb"] = round(growth / 1e6, 1)
            if reference:
                result["nginx_down_gb_per_cpu_s"] = round(statistics.median(reference), 2)
    listener.close()
    if options.plot:
        plot(options.plot, transfers)
    print(json.dumps(result))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    for name, run in [("requests", requests), ("transfer", transfer)]:
        command = commands.add_parser(name)
        command.add_argument("--inbound", type=int, required=True)
        command.add_argument("--management", type=int, required=True)
        if name == "requests":
            command.add_argument("--caddy", default="")
        else:
            command.add_argument("--plot", default="")
        command.add_argument("--rounds", type=int, default=3)
        command.add_argument("--seconds", type=int, default=3)
        command.add_argument("pids", type=int, nargs="+")
        command.set_defaults(run=run)
    options = parser.parse_args()
    options.run(options)


if __name__ == "__main__":
    sys.exit(main())
