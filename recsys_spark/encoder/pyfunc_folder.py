"""A model folder as MLflow keeps it: with the few source files it needs, so that it loads where this project is absent."""

from __future__ import annotations

import contextlib
import shutil
import warnings
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]
SHIPPED = ("__init__.py", "errors.py", "config", "encoder")  # all that the model file imports of this project
REQUIREMENTS = ("mlflow", "torch", "transformers", "numpy", "pydantic", "safetensors", "tokenizers")
MODEL_ARTIFACT = "model"


def save_pyfunc(model_dir: Path, scratch: Path) -> Path:
    """Write the pyfunc folder of ``model_dir`` into ``scratch``; returns it."""
    import mlflow
    from mlflow.models import ModelSignature
    from mlflow.types import ParamSchema, ParamSpec

    code = scratch / "code" / PACKAGE.name
    code.mkdir(parents=True)
    for name in SHIPPED:
        source = PACKAGE / name
        if source.is_dir():
            shutil.copytree(source, code / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy2(source, code / name)
    saved = scratch / "saved"
    with warnings.catch_warnings():  # it asks for type hints and an example, which two kinds of input cannot have
        warnings.simplefilter("ignore")
        mlflow.pyfunc.save_model(
            str(saved),
            python_model=str(PACKAGE / "encoder" / "pyfunc_model.py"),
            artifacts={MODEL_ARTIFACT: str(model_dir)},
            code_paths=[str(code)],
            pip_requirements=_requirements(),
            signature=ModelSignature(params=ParamSchema([ParamSpec("tower", "string", "item")])),
        )
    return saved


def _requirements() -> list[str]:
    found = []
    for name in REQUIREMENTS:
        with contextlib.suppress(PackageNotFoundError):
            found.append(f"{name}=={version(name).split('+')[0]}")
    return found
