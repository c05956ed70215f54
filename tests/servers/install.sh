#!/usr/bin/env bash
# Installs the servers that the tests run against, if they are missing and this user may do so.
set -euo pipefail

missing=()
compgen -G '/usr/lib/postgresql/*/bin/postgres' >/dev/null || command -v postgres >/dev/null ||
    [ -n "${TEST_DATABASE_URL:-}" ] || missing+=(postgresql)
command -v redis-server >/dev/null || [ -n "${TEST_REDIS_URL:-}" ] || missing+=(redis-server)
command -v chromium >/dev/null || command -v chromium-browser >/dev/null || missing+=(chromium)
[ ${#missing[@]} -eq 0 ] && exit 0

install="apt-get update && apt-get install -y --no-install-recommends ${missing[*]}"
if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
    echo "error: the tests need ${missing[*]}. Install them with your package manager, on Debian or Ubuntu: sudo sh -c '$install'" >&2
    exit 1
fi
echo "Installing ${missing[*]} for the tests (once) ..."
log=$(mktemp)
export DEBIAN_FRONTEND=noninteractive
if ! sh -c "$install" >"$log" 2>&1; then
    tail -n 20 "$log" >&2
    echo "error: could not install ${missing[*]}; the command was: $install" >&2
    exit 1
fi
rm -f "$log"
