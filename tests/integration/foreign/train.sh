#!/usr/bin/env bash
# Trains a network through the service and fetches its weights: train.sh BUF ADDRESS WEIGHTS EXAMPLES
# BUF is the program; WEIGHTS and EXAMPLES are safetensors files. Messages are known by the server's reflection alone.
set -euo pipefail

buf=$1 address=$2 weights=$3 examples=$4
here=$(dirname "$0")

call() { # METHOD, the request on stdin
  "$buf" curl --protocol grpc --http2-prior-knowledge -d @- "http://$address/chainrule.v1.$1"
}

field() { # NAME, of the messages on stdin: its value where it is no part of another
  sed -nE "s/^  \"$1\": \"?([^\",]*)\"?,?\$/\1/p"
}

upload() { # FILE
  local digest
  digest=$(sha256sum "$1" | cut -d ' ' -f 1)
  {
    printf '{"blob": {"digest": "%s", "size_bytes": "%d"}}\n' "$digest" "$(stat -c %s "$1")"
    # shellcheck disable=SC2016  # it is for the shell that split starts
    split -b 65536 --filter='printf "{\"chunk\": \"%s\"}\n" "$(base64 -w 0)"' "$1"
  } | call BlobService/WriteBlob | field digest
}

model=$(printf '{"model_id": "from-buf", "model": {"builtin": %s, "weights_digest": "%s"}}' \
  "$(cat "$here/architecture.json")" "$(upload "$weights")" | call ModelService/CreateModel | field name)
dataset=$(printf '{"dataset_id": "from-buf", "dataset": {"digest": "%s"}}' "$(upload "$examples")" |
  call DatasetService/CreateDataset | field name)
job=$(printf '{"request_id": "from-buf-%s-%s", "job": {"model": "%s", "dataset": "%s", "config": %s}}' \
  $$ "$(date +%s)" "$model" "$dataset" "$(cat "$here/config.json")" | call JobService/CreateJob | field name)

watched=$(printf '{"name": "%s"}' "$job" | call JobService/WatchJob)
states=$(field state <<<"$watched" | uniq | paste -s -d ' ')
digest=$(field weightsDigest <<<"$watched" | tail -n 1)
sum=$(printf '{"digest": "%s"}' "$digest" | call BlobService/ReadBlob | field chunk |
  while read -r chunk; do base64 -d <<<"$chunk"; done | sha256sum)
printf '{"job": "%s", "states": "%s", "weights_digest": "%s", "sha256": "%s"}\n' \
  "$job" "$states" "$digest" "${sum%% *}"
