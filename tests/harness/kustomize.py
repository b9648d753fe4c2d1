"""Renders a kustomization: with kubectl where it is installed, and with the few rules that deploy/k8s uses where not.

The second way knows resources, the two generators, and strategic merge patches given as files; it refuses anything else
and gives generated objects no hash in their names, which `without_hashes` takes from the first way's.
"""

import base64
import copy
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import yaml

Objects = list[dict[str, Any]]

_KNOWN = {"apiVersion", "kind", "resources", "configMapGenerator", "secretGenerator", "patches"}
# The lists that Kubernetes merges item by item, and by what; others are replaced.
_MERGED_BY = {"containers": "name", "env": "name", "volumes": "name", "volumeMounts": "mountPath"}
_HASH = re.compile(r"-[0-9a-z]{10}$")


def kubectl() -> str | None:
    return shutil.which("kubectl")


def render_with_kubectl(folder: Path) -> Objects:
    done = subprocess.run([str(kubectl()), "kustomize", str(folder)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return [item for item in yaml.safe_load_all(done.stdout) if item]


def render_by_merge(folder: Path) -> Objects:
    wanted = yaml.safe_load((folder / "kustomization.yaml").read_text())
    assert set(wanted) <= _KNOWN, f"{folder} uses what this renderer does not know: {set(wanted) - _KNOWN}"
    objects: Objects = []
    for resource in wanted.get("resources", []):
        path = folder / resource
        objects += render_by_merge(path) if path.is_dir() else list(yaml.safe_load_all(path.read_text()))
    for generator in wanted.get("configMapGenerator", []):
        _generate(objects, "ConfigMap", generator, _literals(generator))
    for generator in wanted.get("secretGenerator", []):
        data = {key: base64.b64encode(value.encode()).decode() for key, value in _literals(generator).items()}
        _generate(objects, "Secret", generator, data)
    for patch in wanted.get("patches", []):
        change = yaml.safe_load((folder / patch["path"]).read_text())
        merged = _find(objects, change["kind"], change["metadata"]["name"])
        merged.update(_merge(merged, change))
    return objects


def without_hashes(objects: Objects) -> Objects:
    """The objects with generated names as they are written in the sources, wherever they stand; sorted."""
    named = {item["metadata"]["name"] for item in objects if item["kind"] == "ConfigMap"}
    return sorted(
        (_renamed(item, {name: _HASH.sub("", name) for name in named}) for item in objects),
        key=lambda item: (item["kind"], item["metadata"]["name"]),
    )


def _renamed(node: Any, names: dict[str, str]) -> Any:
    if isinstance(node, dict):
        return {key: _renamed(value, names) for key, value in node.items()}
    if isinstance(node, list):
        return [_renamed(value, names) for value in node]
    return names.get(node, node) if isinstance(node, str) else node


def _literals(generator: dict[str, Any]) -> dict[str, str]:
    return dict(literal.split("=", 1) for literal in generator["literals"])


def _generate(objects: Objects, kind: str, generator: dict[str, Any], data: dict[str, str]) -> None:
    if generator.get("behavior") == "merge":
        _find(objects, kind, generator["name"])["data"].update(data)
        return
    made: dict[str, Any] = {"apiVersion": "v1", "kind": kind, "metadata": {"name": generator["name"]}, "data": data}
    objects.append(made if kind == "ConfigMap" else {**made, "type": "Opaque"})


def _find(objects: Objects, kind: str, name: str) -> dict[str, Any]:
    (found,) = (item for item in objects if (item["kind"], item["metadata"]["name"]) == (kind, name))
    return found


def _merge(old: Any, new: Any, key: str = "") -> Any:
    if isinstance(old, dict) and isinstance(new, dict):
        return {**old, **{name: _merge(old.get(name), value, name) for name, value in new.items()}}
    if isinstance(old, list) and isinstance(new, list) and key in _MERGED_BY:
        by = _MERGED_BY[key]
        merged = {item[by]: copy.deepcopy(item) for item in old}
        for item in new:
            merged[item[by]] = _merge(merged.get(item[by]), item)
        return list(merged.values())
    return new
