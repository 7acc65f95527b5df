#!/usr/bin/env bash
# Stop the cluster that start-cluster.sh started in DIR: only the processes whose ids it wrote there.
# usage: deploy/spark/stop-cluster.sh DIR
set -u
for file in "$1"/worker-*.pid "$1"/master.pid; do
  [ -f "$file" ] || continue
  kill -- "-$(cat "$file")" 2>/dev/null || kill "$(cat "$file")" 2>/dev/null
  rm -f "$file"
done
