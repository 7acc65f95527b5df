#!/usr/bin/env bash
# Start a standalone Spark cluster on this machine: one master, two workers, all on 127.0.0.1.
# usage: deploy/spark/start-cluster.sh DIR [CORES_PER_WORKER] [MEMORY_PER_WORKER]
# DIR gets logs, pid files and the master's address in DIR/master-url; stop with deploy/spark/stop-cluster.sh DIR
set -euo pipefail
dir=$(mkdir -p "$1" && cd "$1" && pwd)
cores=${2:-1}
memory=${3:-1g}
workers=2
python=${PYSPARK_PYTHON:-python3}
spark_home=$("$python" -c 'import pathlib, pyspark; print(pathlib.Path(pyspark.__file__).parent)')
export SPARK_HOME=$spark_home SPARK_LOCAL_IP=127.0.0.1 SPARK_NO_DAEMONIZE=1

free_port() { "$python" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }
port=$(free_port)
web=$(free_port)

setsid "$spark_home/bin/spark-class" org.apache.spark.deploy.master.Master \
  --host 127.0.0.1 --port "$port" --webui-port "$web" >"$dir/master.log" 2>&1 &
echo $! >"$dir/master.pid"
for n in $(seq "$workers"); do
  setsid "$spark_home/bin/spark-class" org.apache.spark.deploy.worker.Worker "spark://127.0.0.1:$port" \
    --host 127.0.0.1 --webui-port 0 --cores "$cores" --memory "$memory" --work-dir "$dir/work-$n" >"$dir/worker-$n.log" 2>&1 &
  echo $! >"$dir/worker-$n.pid"
done

for _ in $(seq 120); do
  alive=$("$python" - "$web" <<'PY' || true
import json, sys, urllib.request
try:
    with urllib.request.urlopen(f"http://127.0.0.1:{sys.argv[1]}/json/", timeout=2) as page:
        print(sum(w["state"] == "ALIVE" for w in json.load(page)["workers"]))
except OSError:
    print(0)
PY
)
  if [ "${alive:-0}" = "$workers" ]; then
    echo "spark://127.0.0.1:$port" | tee "$dir/master-url"
    exit 0
  fi
  sleep 0.5
done
echo "the workers did not register within a minute; see $dir/*.log" >&2
"$(dirname "$0")/stop-cluster.sh" "$dir"
exit 1
