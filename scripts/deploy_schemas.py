"""Writes the JSON schemas against which tests/test_deploy.py holds the files in deploy/, so that tests need no network.

Run it where `kubernetes-validate` and `check-jsonschema` are installed, which bundle the schemas of Kubernetes and of
the Compose specification. They are large and never change, hence no dependencies: only what the used kinds need is
kept, without descriptions. Both are under the Apache licence 2.0.
"""

import json
import sys
from importlib.resources import files
from pathlib import Path
from typing import Any

TARGET = Path(__file__).resolve().parent.parent / "tests" / "schemas"
# The oldest version that deploy/README.md names, and the newest one there is.
VERSIONS = ("1.29", "1.37")
KINDS = (
    "configmap-v1",
    "deployment-apps-v1",
    "job-batch-v1",
    "poddisruptionbudget-policy-v1",
    "secret-v1",
    "service-v1",
    "serviceaccount-v1",
    "statefulset-apps-v1",
)


def shortened(node: Any, named: set[str]) -> Any:
    """The schema without prose, its references local; collects the names of the definitions it refers to."""
    if isinstance(node, list):
        return [shortened(item, named) for item in node]
    if not isinstance(node, dict):
        return node
    if "$ref" in node:
        name = node["$ref"].rpartition("/")[2]
        named.add(name)
        return {"$ref": f"#/$defs/{name}"}
    # A property may itself be called "description".
    return {
        key: shortened(value, named)
        for key, value in node.items()
        if not (key == "description" and isinstance(value, str)) and not key.startswith("x-kubernetes-")
    }


def kubernetes(version: str) -> dict[str, Any]:
    """One schema that takes any of the kinds, strictly: fields that Kubernetes does not know are refused."""
    folder = files("kubernetes_validate") / "kubernetes-json-schema" / f"v{version}.0-local-strict"
    definitions = json.loads((folder / "_definitions.json").read_text())["$defs"]
    kept: dict[str, Any] = {}
    missing: set[str] = set()
    kinds = {}
    for kind in KINDS:
        schema = shortened(json.loads((folder / f"{kind}.json").read_text()), missing)
        kinds["/".join(schema["properties"][field]["enum"][0] for field in ("apiVersion", "kind"))] = schema
    while missing - kept.keys():
        for name in sorted(missing - kept.keys()):
            kept[name] = shortened(definitions[name], missing)
    return {"kinds": kinds, "$defs": dict(sorted(kept.items()))}


def main() -> int:
    TARGET.mkdir(exist_ok=True)
    for version in VERSIONS:
        text = json.dumps(kubernetes(version), sort_keys=True, indent=1) + "\n"
        (TARGET / f"kubernetes-{version}.json").write_text(text)
    compose = files("check_jsonschema") / "builtin_schemas" / "vendor" / "compose-spec.json"
    (TARGET / "compose.json").write_text(
        json.dumps(shortened_compose(json.loads(compose.read_text())), sort_keys=True, indent=1) + "\n"
    )
    return 0


def shortened_compose(node: Any) -> Any:
    """The Compose schema without prose; its references are local already."""
    if isinstance(node, list):
        return [shortened_compose(item) for item in node]
    if not isinstance(node, dict):
        return node
    return {
        key: shortened_compose(value)
        for key, value in node.items()
        if not (key in ("description", "title") and isinstance(value, str))
    }


if __name__ == "__main__":
    sys.exit(main())
