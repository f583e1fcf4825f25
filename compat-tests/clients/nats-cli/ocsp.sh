#!/usr/bin/env bash
# Stapling, with openssl as the authority's responder and as the client that asks for a staple.
#
# Starts its own servers: $SERVER is the executable. Prints what it saw, one line per thing.
set -euo pipefail
cd "$SCENARIO_DIR"
responder=
server=
trap 'kill $responder $server 2>/dev/null || true' EXIT

# A port that is free now.
port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }
PORT=$(port)

cat > openssl.cnf <<CNF
[req]
distinguished_name = dn
[dn]
[ca]
basicConstraints = critical, CA:true
keyUsage = keyCertSign, cRLSign, digitalSignature
[delegate]
extendedKeyUsage = OCSPSigning
[plain]
subjectAltName = IP:127.0.0.1
authorityInfoAccess = OCSP;URI:http://127.0.0.1:$PORT/
[insists]
subjectAltName = IP:127.0.0.1
authorityInfoAccess = OCSP;URI:http://127.0.0.1:$PORT/
tlsfeature = status_request
CNF

issue() { # name section
  openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout "$1.key" -out "$1.csr" -subj "/CN=$1" -config openssl.cnf 2>/dev/null
  openssl x509 -req -in "$1.csr" -CA ca.pem -CAkey ca.key -days 30 -extfile openssl.cnf -extensions "$2" -set_serial "$3" -out "$1.pem" 2>/dev/null
}
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout ca.key -out ca.pem -days 30 -subj /CN=authority -config openssl.cnf -extensions ca 2>/dev/null
issue plain plain 0x10
issue insists insists 0x11
issue delegate delegate 0x12

# What the authority knows of a certificate: V is good, R is revoked.
index() { # state
  local until; until=$(date -u -d '+30 days' +%y%m%d%H%M%SZ)
  local revoked=; [ "$1" = R ] && revoked=$(date -u +%y%m%d%H%M%SZ)
  for serial in 10 11; do printf '%s\t%s\t%s\t%s\tunknown\t/CN=%s\n' "$1" "$until" "$revoked" "$serial" "$serial"; done > index.txt
}
respond() { # signer
  [ -z "$responder" ] || { kill "$responder" 2>/dev/null || true; wait "$responder" || true; }
  # The port is given up and asked for again: for a moment it may be somebody else's.
  for _ in $(seq 100); do
    openssl ocsp -index index.txt -port "$PORT" -rsigner "$1.pem" -rkey "$1.key" -CA ca.pem -nmin 10 > responder.log 2>&1 &
    responder=$!
    while kill -0 "$responder" 2>/dev/null; do
      grep -q "waiting for OCSP client" responder.log && return
      sleep 0.05
    done
    sleep 0.1
  done
  cat responder.log >&2
  exit 1
}

start() { # certificate, ocsp setting; gives up when the server ends
  mkdir -p ports; rm -f ports/*
  cat > server.conf <<CONF
listen: 127.0.0.1:-1
store_dir: "$SCENARIO_DIR/store"
jetstream: enabled
tls { cert_file: "$1.pem", key_file: "$1.key", ca_file: "ca.pem", timeout: 10, handshake_first: true }
$2
CONF
  "$SERVER" -c server.conf --ports_file_dir ports > server.log 2>&1 &
  server=$!
  for _ in $(seq 600); do
    compgen -G 'ports/*.ports' > /dev/null && return
    kill -0 "$server" 2>/dev/null || { server=; return 0; }
    sleep 0.05
  done
}
stop() { [ -z "$server" ] || { kill "$server"; wait "$server" || true; server=; }; }

# What a handshake brings: the status in the staple, or that there is none.
staple() {
  local address; address=$(grep -oh '127.0.0.1:[0-9]*' ports/*.ports | head -1)
  openssl s_client -connect "$address" -status -CAfile ca.pem < /dev/null > handshake.log 2>&1 || true
  grep -o 'OCSP response: no response sent\|Cert Status: .*' handshake.log | sort -u
}

# A server with a certificate and a setting: its staple, or why it does not start.
try() { # label certificate setting
  start "$2" "$3"
  if [ -n "$server" ]; then
    echo "$1: $(staple)"
    stop
  else
    echo "$1: refused: $(grep -o 'found existing OCSP status.*\|bad OCSP status update for certificate' server.log | head -1)"
  fi
}

index V
respond ca
try "nothing asked for" plain ""
try "always" plain "ocsp { mode: always }"
kill "$responder"; wait "$responder" || true
try "always, as it was kept" plain "ocsp { mode: Always }"
rm -rf store
try "always, nobody answers" plain "ocsp { mode: always }"
respond delegate
try "insists, a delegate signs" insists ""
rm -rf store
try "insists, must" insists "ocsp { mode: must }"
rm -rf store
try "insists, switched off" insists "ocsp: false"
index R
respond ca
rm -rf store
try "insists, revoked" insists "ocsp: true"
rm -rf store
try "insists, revoked, must" insists "ocsp { mode: must }"
try "revoked, always" plain "ocsp { mode: always }"
rm -rf store
index V
respond plain
try "signed by somebody else" plain "ocsp { mode: always }"
respond ca
rm -rf store
try "another responder" plain "ocsp { mode: always, url: \"http://127.0.0.1:1\" }"
