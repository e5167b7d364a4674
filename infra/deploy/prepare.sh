#!/bin/sh
# Makes once what compose.yaml needs beside it: certs/, an authority and the event store's certificate; .env, its secrets.
# What is there is kept: the event store takes its passwords at its first start only. To begin anew, remove both and the
# volumes. Needs openssl.
set -eu
umask 077
cd "$(dirname "$0")"

if [ ! -e certs ]; then
  # Made aside, so that half of it is never taken for the whole.
  new=$(mktemp -d ./certs.new.XXXXXX)
  trap 'rm -rf "$new"' EXIT
  mkdir "$new/events"
  openssl req -x509 -newkey rsa:2048 -nodes -days 3650 -subj "/CN=relai compose authority" \
    -keyout "$new/ca.key" -out "$new/ca.crt"
  openssl req -new -newkey rsa:2048 -nodes -subj "/CN=eventstoredb-node" \
    -keyout "$new/events/node.key" -out "$new/node.csr"
  # The server is called `events` by its clients; it calls itself, which needs clientAuth, at 127.0.0.1.
  printf '%s\n' "subjectAltName=DNS:events,DNS:localhost,IP:127.0.0.1" "extendedKeyUsage=serverAuth,clientAuth" >"$new/node.ext"
  openssl x509 -req -in "$new/node.csr" -days 3650 -CA "$new/ca.crt" -CAkey "$new/ca.key" -CAcreateserial \
    -extfile "$new/node.ext" -out "$new/events/node.crt"
  rm "$new/node.csr" "$new/node.ext"
  # Users of the containers read these; on this machine the folder around them (0700) keeps others away.
  chmod 755 "$new/events"
  chmod 644 "$new/ca.crt" "$new/events/node.crt" "$new/events/node.key"
  mv "$new" certs
  trap - EXIT
fi

if [ ! -e .env ]; then
  cat >.env.new <<END
# Letters and digits only: it stands in a URL.
EVENTS_PASSWORD=$(openssl rand -hex 24)
EVENTS_OPS_PASSWORD=$(openssl rand -hex 24)
RELAI_ADMIN_TOKEN=$(openssl rand -hex 24)

# The simulated upstream under the names of OpenAI's models. For OpenAI itself: its key, and without the two other lines.
OPENAI_API_KEY=simulated
OPENAI_BASE_URL=http://127.0.0.1:8099/openai/v1
COMPOSE_PROFILES=simulator
END
  mv .env.new .env
fi
