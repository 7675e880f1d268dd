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
  need_packages librdkafka-dev libsystemd-dev libssl-dev zlib1g-dev pkg-config curl kcat
  need_swift
}

# Builds as it is released, in one go: the gateway and its development broker, or with 'everything' benchmarks and tools as well. The
# Swift runtime is linked in: calls into it are direct ones, which is worth more than a tenth of a proxied request's time, and
# the binaries run where there is no Swift.
build_release() {
  local what=(--target Release)
  [ "${1:-}" != everything ] || what=()
  swift build -c release --static-swift-stdlib "${what[@]}" >&2
}

# A virtual environment with the Kafka server and the independent clients of the tests. Prints its bin directory.
need_python_tools() {
  local environment="$repository/.build-python"
  command -v python3 >/dev/null || need_packages python3 python3-venv
  if ! "$environment/bin/python" -c 'import websockets' >/dev/null 2>&1 || [ ! -x "$environment/bin/noida-db" ] || [ ! -x "$environment/bin/st" ]; then
    quietly "pip could not install noida-db (the Kafka server of the tests) and schemathesis into $environment" \
      install_python_tools "$environment"
  fi
  if [ ! -x "$environment/bin/wstest" ]; then
    if find_python2 >/dev/null; then
      quietly "pip could not install autobahntestsuite into $environment" install_conformance_suite "$environment"
    else
      say "no Python 2.7 here: the WebSocket conformance suite (Autobahn) is left out of the tests"
    fi
  fi
  printf '%s\n' "$environment/bin"
}

install_python_tools() {
  python3 -m venv "$1" && "$1/bin/pip" install -q 'noida-db==0.2.3' 'websockets>=12' 'schemathesis==4.32.5'
}

# The Autobahn test suite is written in Python 2, which Debian no longer has: it gets an environment of its own.
install_conformance_suite() {
  "$1/bin/pip" install -q 'virtualenv==20.21.1' \
    && "$1/bin/virtualenv" -q -p "$(find_python2)" "$1/wstest" \
    && "$1/wstest/bin/pip" install -q 'autobahntestsuite==25.10.1' \
    && "$1/wstest/bin/wstest" --help >/dev/null \
    && ln -sf ../wstest/bin/wstest "$1/bin/wstest"
}

# Prints the path of a Python 2.7 that runs; pyenv's need not be the active one.
find_python2() {
  local candidate
  for candidate in "$(command -v python2.7)" "${PYENV_ROOT:-$HOME/.pyenv}"/versions/2.7.*/bin/python2.7; do
    if [ -n "$candidate" ] && "$candidate" -c 'import sys' 2>/dev/null; then
      printf '%s\n' "$candidate"
      return
    fi
  done
  return 1
}

# quietly MESSAGE COMMAND…: runs the command, and shows the end of what it printed only if it fails.
quietly() {
  local message=$1 log
  shift
  log=$(mktemp)
  if ! "$@" >"$log" 2>&1; then
    tail -n 20 "$log" >&2
    rm -f "$log"
    die "$message"
  fi
  rm -f "$log"
}
