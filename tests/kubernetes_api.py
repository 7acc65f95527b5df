"""As much of a Kubernetes API server and a kubelet as Spark's scheduler asks for: a pod is a process that runs its arguments
by the image's own entrypoint, its empty and configuration volumes are folders, its address is this machine's."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

Object = dict[str, Any]
_KINDS = {"pods": "Pod", "configmaps": "ConfigMap", "services": "Service", "persistentvolumeclaims": "PersistentVolumeClaim"}


@dataclass
class Cluster:
    """Objects by kind and name, and the process of each pod that was started here."""

    entrypoint: Path
    folder: Path
    image: Mapping[str, str]  # environment variables that the image sets
    objects: dict[str, dict[str, Object]] = field(default_factory=lambda: {kind: {} for kind in _KINDS})
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    created: list[Object] = field(default_factory=list)  # pods, as they were asked for
    lose: str = ""  # the pod whose name ends so is killed once, when it is seen running for the second time
    lock: threading.RLock = field(default_factory=threading.RLock)
    _looks: int = 0
    _version: int = 0

    def put(self, kind: str, item: Object) -> Object:
        """Keep an object; a new pod that has a container to start is started."""
        with self.lock:
            self._version += 1
            meta = item.setdefault("metadata", {})
            is_new = meta["name"] not in self.objects[kind]
            meta |= {"resourceVersion": str(self._version), "namespace": "recsys-spark"}
            meta.setdefault("uid", str(uuid.uuid4()))
            self.objects[kind][meta["name"]] = item | {"apiVersion": "v1", "kind": _KINDS[kind]}
            if kind == "pods" and is_new and item["spec"].get("containers"):
                self.created.append(json.loads(json.dumps(item)))
                self.processes[meta["name"]] = self._started(item)
            return self.objects[kind][meta["name"]]

    def found(self, kind: str) -> list[Object]:
        """All objects of a kind, pods with their status."""
        with self.lock:
            if kind == "pods":
                self._lose_one()
            return [self._seen(kind, item) for item in self.objects[kind].values()]

    def _lose_one(self) -> None:
        process = next((p for name, p in self.processes.items() if self.lose and name.endswith(self.lose)), None)
        self._looks += process is not None
        if process is not None and self._looks == 2:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def _seen(self, kind: str, item: Object) -> Object:
        process = self.processes.get(item["metadata"]["name"])
        if kind != "pods" or process is None:
            return item
        code = process.poll()
        phase = "Running" if code is None else "Succeeded" if code == 0 else "Failed"
        state: Object = {"running": {}} if code is None else {"terminated": {"exitCode": code}}
        name = item["spec"]["containers"][0]["name"]
        status = {"phase": phase, "podIP": "127.0.0.1", "containerStatuses": [{"name": name, "state": state}]}
        return item | {"status": status}

    def remove(self, kind: str, name: str) -> Object | None:
        with self.lock:
            found = self.objects[kind].pop(name, None)
            self._end(name)
        return found

    def _end(self, name: str) -> None:
        process = self.processes.pop(name, None)
        if process is not None and process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()

    def close(self) -> None:
        for name in list(self.processes):
            self._end(name)

    def _started(self, pod: Object) -> subprocess.Popen[bytes]:
        container, name = pod["spec"]["containers"][0], pod["metadata"]["name"]
        places = {"status.podIP": "127.0.0.1", "metadata.name": name}
        env = {
            e["name"]: e.get("value") or places.get(e.get("valueFrom", {}).get("fieldRef", {}).get("fieldPath"), "")
            for e in container["env"]
        }
        for path, folder in self._mounts(pod, container).items():
            env = {key: value.replace(path, str(folder)) for key, value in env.items()}
        command = [str(self.entrypoint), *container["args"]]
        home = self.folder / name  # an executor puts the packages it fetches where it stands
        home.mkdir(exist_ok=True)
        with (self.folder / f"{name}.log").open("wb") as log:
            return subprocess.Popen(
                command, cwd=home, env={**os.environ, **self.image, **env}, stdout=log, stderr=log, start_new_session=True
            )

    def _mounts(self, pod: Object, container: Object) -> dict[str, Path]:
        """Mount path -> folder, of empty volumes and of configuration."""
        volumes = {volume["name"]: volume for volume in pod["spec"].get("volumes", [])}
        found = {}
        for mount in container.get("volumeMounts", []):
            volume, folder = volumes[mount["name"]], self.folder / pod["metadata"]["name"] / mount["name"]
            if "persistentVolumeClaim" in volume:
                continue
            folder.mkdir(parents=True, exist_ok=True)
            for file, text in self.objects["configmaps"].get(volume.get("configMap", {}).get("name"), {}).get("data", {}).items():
                (folder / file).write_text(text, encoding="utf-8")
            found[mount["mountPath"]] = folder
        return found


@contextmanager
def serving(cluster: Cluster) -> Iterator[str]:
    """The address of the server, while it runs; ends what was started."""

    class Handler(_Handler):
        of = cluster

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        cluster.close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    of: Cluster

    def do_GET(self) -> None:
        kind, name, asked = self._asked()
        if name:
            item = next((i for i in self.of.found(kind) if i["metadata"]["name"] == name), None)
            self._answer(*((200, item) if item else _absent(name)))
        else:
            self._answer(
                200, {"apiVersion": "v1", "kind": f"{_KINDS[kind]}List", "metadata": {}, "items": self._chosen(kind, asked)}
            )

    def do_POST(self) -> None:
        kind, _, _ = self._asked()
        self._answer(201, self.of.put(kind, self._body()))

    def do_PUT(self) -> None:
        kind, _, _ = self._asked()
        self._answer(200, self.of.put(kind, self._body()))

    def do_PATCH(self) -> None:
        kind, name, _ = self._asked()
        change, item = self._body(), self.of.objects[kind].get(name)
        if item is None or not isinstance(change, dict):
            self._answer(*_absent(name))
            return
        item["metadata"].setdefault("labels", {}).update(change.get("metadata", {}).get("labels", {}))
        self._answer(200, self.of.put(kind, item))

    def do_DELETE(self) -> None:
        kind, name, asked = self._asked()
        self._body()
        names = [name] if name else [item["metadata"]["name"] for item in self._chosen(kind, asked)]
        gone = [item for item in (self.of.remove(kind, each) for each in names) if item]
        self._answer(200, gone[0] if name and gone else {"apiVersion": "v1", "kind": "Status", "status": "Success"})

    def _asked(self) -> tuple[str, str, dict[str, list[str]]]:
        """Kind, name and query of ``/api/v1/namespaces/NAMESPACE/KIND[/NAME]``."""
        parts = urlsplit(self.path)
        path = parts.path.strip("/").split("/")
        return path[4], path[5] if len(path) > 5 else "", parse_qs(parts.query)

    def _chosen(self, kind: str, asked: Mapping[str, list[str]]) -> list[Object]:
        """Objects by ``labelSelector`` (a=b, a!=b) and by ``fieldSelector`` metadata.name."""
        found = self.of.found(kind)
        for rule in asked.get("labelSelector", [""])[0].split(","):
            key, _, value = rule.partition("=")
            if key.endswith("!"):
                found = [item for item in found if item["metadata"].get("labels", {}).get(key[:-1]) != value]
            elif key:
                found = [item for item in found if item["metadata"].get("labels", {}).get(key) == value]
        name = asked.get("fieldSelector", [""])[0].partition("metadata.name=")[2]
        return [item for item in found if not name or item["metadata"]["name"] == name]

    def _body(self) -> Any:
        length = int(self.headers.get("Content-Length") or 0)
        return json.loads(self.rfile.read(length)) if length else {}

    def _answer(self, code: int, item: Object) -> None:
        body = json.dumps(item).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        with (self.of.folder / "requests.log").open("a") as log:
            log.write(format % args + "\n")


def _absent(name: str) -> tuple[int, Object]:
    return 404, {
        "apiVersion": "v1",
        "kind": "Status",
        "status": "Failure",
        "reason": "NotFound",
        "code": 404,
        "message": f"{name} not found",
    }
