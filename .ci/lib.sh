# shellcheck shell=bash
# Functions shared by the scripts in .ci. Source it from a bash script that has
# `set -euo pipefail`:
#
#   . "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
#   trap stop_servers EXIT
#
# Servers listen on 127.0.0.1 only, and are stopped by the pid they were
# started with.

# ROOT is the top of the checkout.
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

# What start_server started: three lists with the same index.
SERVER_PIDS=()
SERVER_NAMES=()
SERVER_LOGS=()

# say TEXT... prints a heading with the time since the script began.
say() {
	printf '== [%ds] %s\n' "$SECONDS" "$*"
}

# die TEXT... ends the script with a message.
die() {
	printf 'error: %s\n' "$*" >&2
	exit 1
}

# go_test ARGS... is go test with a limit for each package, so that a hang is seen early; later -timeout flags win. Of the
# goroutines that it then prints, those in our code are shown, and no more than 200 lines: a reader of the end of a log
# sees the test that hung, and not how net/http waits.
go_test() {
	go test -timeout 5m "$@" 2>&1 | awk '
		function flush() { # one goroutine
			if (text != "" && (first || text ~ /ocisync/) && shown < 200) { printf "%s", text; shown += lines } else if (text != "") hidden++
			text = ""; lines = 0; first = 0
		}
		/^(panic|fatal error|SIGQUIT|SIGABRT):/ && !dump { dump = first = 1; shown = hidden = 0 }
		!dump { print; next }
		/^(FAIL|ok |ok\t|exit status|---)/ { flush(); if (hidden) print "(" hidden " goroutines are left out)"; dump = 0; print; next }
		{ text = text $0 "\n"; lines++ }
		/^$/ { flush() }
		END { if (dump) flush() }'
}

# install_packages PACKAGE... installs those Debian packages that are missing.
# It asks nothing of the network when none is.
install_packages() {
	local missing=() as_root=() p
	for p in "$@"; do
		if [ "$(dpkg-query -W -f '${db:Status-Status}' "$p" 2>/dev/null)" != installed ]; then
			missing+=("$p")
		fi
	done
	if [ ${#missing[@]} -eq 0 ]; then
		return 0
	fi
	command -v apt-get >/dev/null || die "missing packages: ${missing[*]}; there is no apt-get to install them"
	if [ "$(id -u)" -ne 0 ]; then
		command -v sudo >/dev/null || die "missing packages: ${missing[*]}; install them as root"
		as_root=(sudo -n)
	fi
	say "install ${missing[*]}"
	"${as_root[@]}" apt-get update -qq || die "apt-get update failed"
	"${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
		apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null ||
		die "cannot install ${missing[*]}"
}

# build_peers DIR builds the other tools that bench/peers/go.mod pins into DIR.
build_peers() {
	mkdir -p "$1"
	local dir
	dir=$(cd "$1" && pwd)
	(cd "$ROOT/bench/peers" && GOWORK=off go build -o "$dir/" tool) || die "cannot build the peers"
}

# free_port prints a TCP port of 127.0.0.1 that nothing listens on. It is below
# the range from which the kernel hands out ports to clients, so that it stays
# free until a server takes it.
free_port() {
	local port
	for _ in {1..100}; do
		port=$((20000 + ${SRANDOM:-$RANDOM} % 12000))
		if ! (: <"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then
			echo "$port"
			return 0
		fi
	done
	die "no free port on 127.0.0.1"
}

# start_server NAME LOGFILE COMMAND... runs COMMAND in the background. Call it
# in the script's own shell: a subshell's list of servers is lost.
start_server() {
	local name=$1 log=$2
	shift 2
	"$@" >"$log" 2>&1 </dev/null &
	SERVER_PIDS+=("$!")
	SERVER_NAMES+=("$name")
	SERVER_LOGS+=("$log")
}

# is_running PID holds if PID is a child of this shell that still runs. A pid
# that ended, and may since belong to somebody else's process, is not.
is_running() {
	jobs -pr | grep -x "$1" >/dev/null
}

# wait_http URL waits until URL is answered, for 30 seconds at most. It is for
# the server started last, and fails at once when that one has ended.
wait_http() {
	local url=$1 last=$((${#SERVER_PIDS[@]} - 1))
	for _ in {1..300}; do
		if [ "$last" -ge 0 ] && ! is_running "${SERVER_PIDS[last]}"; then
			tail -n 20 "${SERVER_LOGS[last]}" >&2
			die "${SERVER_NAMES[last]} ended before it answered $url"
		fi
		if curl -s -o /dev/null --max-time 2 --noproxy '*' "$url"; then
			return 0
		fi
		sleep 0.1
	done
	if [ "$last" -ge 0 ]; then
		tail -n 20 "${SERVER_LOGS[last]}" >&2
	fi
	die "no answer from $url"
}

# stop_servers ends each server that was started, and waits for it: SIGTERM,
# then SIGKILL after five seconds. How a server ends is not judged.
stop_servers() {
	local pid
	for pid in "${SERVER_PIDS[@]}"; do
		if is_running "$pid"; then
			kill "$pid" 2>/dev/null || true
		fi
	done
	for pid in "${SERVER_PIDS[@]}"; do
		for _ in {1..50}; do
			is_running "$pid" || break
			sleep 0.1
		done
		if is_running "$pid"; then
			kill -KILL "$pid" 2>/dev/null || true
		fi
		wait "$pid" 2>/dev/null || true
	done
	SERVER_PIDS=()
	SERVER_NAMES=()
	SERVER_LOGS=()
}
