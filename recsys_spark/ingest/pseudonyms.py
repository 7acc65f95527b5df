"""User ids under an id key: HMAC-SHA256 as column expressions, the key kept out of query plans."""

from __future__ import annotations

import hashlib
import hmac
import os

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from recsys_spark.errors import ConfigError

_BLOCK_BYTES = 64  # of SHA-256
KEY_COLUMNS = _INNER, _OUTER = "__inner_key", "__outer_key"


def id_key(variable: str | None) -> bytes | None:
    """The key in the named environment variable; None when no variable is named.

    Raises:
        ConfigError: the variable is not set, or empty.
    """
    if variable is None:
        return None
    value = os.environ.get(variable, "")
    if not value:
        found = f"environment variable {variable} is not set"
        raise ConfigError("[ingest] id_key_env", found, "the pseudonymisation key", f"export {variable}=...")
    return value.encode()


def key_check(key: bytes | None) -> str:
    """Tells one key from another (32 bits of a hash); goes into the stage's fingerprint."""
    return "" if key is None else hashlib.sha256(b"recsys-spark id key" + key).hexdigest()[:8]


def with_key(frame: DataFrame, key: bytes | None) -> DataFrame:
    """Attach the key's two paddings for ``pseudonym``. They come from a one-row frame: a literal would be printed
    by explain, the Spark UI and the event log."""
    if key is None:
        return frame
    block = (hashlib.sha256(key).digest() if len(key) > _BLOCK_BYTES else key).ljust(_BLOCK_BYTES, b"\0")
    paddings = (bytearray(b ^ 0x36 for b in block), bytearray(b ^ 0x5C for b in block))
    row = frame.sparkSession.sparkContext.parallelize([paddings], 1)
    return frame.crossJoin(F.broadcast(frame.sparkSession.createDataFrame(row, f"{_INNER} binary, {_OUTER} binary")))


def pseudonym_of(text: str, key: bytes | None) -> str:
    """What ``pseudonym`` makes of one id."""
    return text if key is None else hmac.new(key, text.encode(), hashlib.sha256).hexdigest()


def pseudonym(text: Column, key: bytes | None) -> Column:
    """HMAC-SHA256 (RFC 2104) of UTF-8 ``text`` as hex: H(K^opad | H(K^ipad | text)); null stays null."""
    if key is None:
        return text
    inner = F.unhex(F.sha2(F.concat(F.col(_INNER), F.encode(text, "UTF-8")), 256))
    return F.sha2(F.concat(F.col(_OUTER), inner), 256)
