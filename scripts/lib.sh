# Shared by the scripts: what is missing is installed, quietly, once. Sourced, never run.
# shellcheck shell=bash

repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

say() { printf '%s\n' "$*" >&2; }
die() { say "error: $*"; exit 1; }

as_root() {
  if [ "$(id -u)" = 0 ]; then "$@"
  elif command -v sudo >/dev/null; then sudo "$@"
  else die "'$*' needs root: run it yourself, then start this script again"
  fi
}

# Installs those of the named Debian packages that are not there yet.
need_packages() {
  local missing=() package
  for package in "$@"; do
    dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q '^install ok installed$' || missing+=("$package")
  done
  [ ${#missing[@]} = 0 ] && return
  command -v apt-get >/dev/null || die "these packages are missing, and there is no apt-get to install them: ${missing[*]}"
  say "installing ${missing[*]}"
  local log
  log=$(mktemp)
  if ! { as_root apt-get -q update && as_root env DEBIAN_FRONTEND=noninteractive apt-get -q -y install --no-install-recommends "${missing[@]}"; } >"$log" 2>&1; then
    tail -n 20 "$log" >&2
    rm -f "$log"
    die "apt-get could not install ${missing[*]}"
  fi
  rm -f "$log"
}

need_swift() {
  command -v swift >/dev/null && return
  die "no 'swift' in PATH: install the Swift 6.3 toolchain from https://www.swift.org/install/linux/ and start this script again"
}

# What the build links against, and what the printed examples use.
need_build_packages() {
  need_packages librdkafka-dev libsystemd-dev libssl-dev pkg-config curl kcat
  need_swift
}

# A virtual environment with the Kafka server and the independent clients of the tests. Prints its bin directory.
need_python_tools() {
  local environment="$repository/.build-python" log
  command -v python3 >/dev/null || need_packages python3 python3-venv
  if ! "$environment/bin/python" -c 'import websockets' >/dev/null 2>&1 || [ ! -x "$environment/bin/noida-db" ]; then
    log=$(mktemp)
    if ! { python3 -m venv "$environment" && "$environment/bin/pip" install -q 'noida-db==0.2.3' 'websockets>=12'; } >"$log" 2>&1; then
      tail -n 20 "$log" >&2
      rm -f "$log"
      die "pip could not install noida-db (the Kafka server of the tests) into $environment"
    fi
    rm -f "$log"
  fi
  printf '%s\n' "$environment/bin"
}
