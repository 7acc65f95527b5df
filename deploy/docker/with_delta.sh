#!/usr/bin/env bash
# Make Delta's jars part of the installed Spark, and write a properties file that no longer asks for them.
# usage: deploy/docker/with_delta.sh PROPERTIES_IN PROPERTIES_OUT    (changes the Spark of the python on PATH)
set -euo pipefail
properties=$1
out=$2
spark_home=$(python -c 'import pathlib, pyspark; print(pathlib.Path(pyspark.__file__).parent)')
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
echo 'from pyspark.sql import SparkSession; SparkSession.builder.getOrCreate().stop()' >"$folder/fetch.py"
spark-submit --master 'local[1]' --properties-file "$properties" --conf spark.jars.ivy="$folder/ivy" "$folder/fetch.py"
cp "$folder"/ivy/jars/io.delta_*.jar "$spark_home/jars/"
mkdir -p "$(dirname "$out")"
sed -e '/^spark\.jars\.packages/d' -e 's/^# *\(spark\.python\.daemon\.module\)/\1/' "$properties" >"$out"
