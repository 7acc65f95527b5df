#!/usr/bin/env bash
# What a pod of this image does. "driver" and "executor" are how Spark on Kubernetes starts its pods, and what they need stands in
# environment variables that it sets; anything else is a command, run as it is.
set -euo pipefail
: "${PYSPARK_PYTHON:=$(command -v python3)}"
: "${SPARK_HOME:=$("$PYSPARK_PYTHON" -c 'import pathlib, pyspark; print(pathlib.Path(pyspark.__file__).parent)')}"
export SPARK_HOME PYSPARK_PYTHON PYSPARK_DRIVER_PYTHON=${PYSPARK_DRIVER_PYTHON:-$PYSPARK_PYTHON}

# the first process of a pod has to reap what others leave behind, as Python workers do
init=()
if [ $$ -eq 1 ]; then init=(tini -s --); fi

case "${1:-}" in
driver)
  shift
  bind=()
  if [ -n "${SPARK_DRIVER_BIND_ADDRESS:-}" ]; then bind=(--conf "spark.driver.bindAddress=$SPARK_DRIVER_BIND_ADDRESS"); fi
  exec "${init[@]}" "$SPARK_HOME/bin/spark-submit" "${bind[@]}" --deploy-mode client "$@"
  ;;
executor)
  # SPARK_JAVA_OPT_0, _1 ...: one option each, in this order
  options=()
  for ((number = 0; ; number++)); do
    name=SPARK_JAVA_OPT_$number
    [ -n "${!name+set}" ] || break
    options+=("${!name}")
  done
  java=${JAVA_HOME:+$JAVA_HOME/bin/}java
  exec "${init[@]}" "$java" "${options[@]}" \
    "-Xms$SPARK_EXECUTOR_MEMORY" "-Xmx$SPARK_EXECUTOR_MEMORY" \
    -cp "${SPARK_CONF_DIR:-$SPARK_HOME/conf}:${SPARK_CLASSPATH:+$SPARK_CLASSPATH:}$SPARK_HOME/jars/*" \
    org.apache.spark.scheduler.cluster.k8s.KubernetesExecutorBackend \
    --driver-url "$SPARK_DRIVER_URL" \
    --executor-id "$SPARK_EXECUTOR_ID" \
    --cores "$SPARK_EXECUTOR_CORES" \
    --app-id "$SPARK_APPLICATION_ID" \
    --hostname "$SPARK_EXECUTOR_POD_IP" \
    --resourceProfileId "$SPARK_RESOURCE_PROFILE_ID" \
    --podName "$SPARK_EXECUTOR_POD_NAME"
  ;;
*)
  exec "${init[@]}" "$@"
  ;;
esac
