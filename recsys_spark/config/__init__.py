"""Typed, strict settings, read from TOML; each component's class lies in the module named after it."""

from recsys_spark.config.load import Config, load_config, parse_config

__all__ = ["Config", "load_config", "parse_config"]
