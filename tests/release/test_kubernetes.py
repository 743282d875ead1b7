"""The objects a cluster is told: valid by the schemas of Kubernetes, and fit for each other and for the service."""

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import kubernetes_validate
import pytest

from recops.release import kubernetes
from recops.release.kubernetes import Deployed, objects
from recops.serving.app import operations
from recops.serving.settings import read_settings

SHARED = Deployed(
    image="registry.shop.example/recops:1",
    version="0123456789abcdef0123456789abcdef",
    environment={"RECOPS_TIMEOUT_S": "1.5", "RECOPS_GRACE_S": "2.5"},
    config={},
    config_variables={},
    workers=2,
    bundle_bytes=100 * 1024**2,
    grace_s=2.5,
    answer_s=10.0,
    replicas=3,
    is_shared_store=True,
    has_ask_key=False,
    has_tls=False,
)
RULES = {
    "config": {"rules.yaml": "available: true\n", "verify.pem": "PEM"},
    "config_variables": {"rules.yaml": "RECOPS_RULES", "verify.pem": "RECOPS_VERIFY_KEY"},
}
FORMS = {
    "shared": SHARED,
    "one pod": replace(SHARED, is_shared_store=False, replicas=1),
    "everything": replace(SHARED, has_ask_key=True, has_tls=True, **RULES),
}
every_form = pytest.mark.parametrize("deployed", FORMS.values(), ids=FORMS)


def by_kind(deployed: Deployed) -> dict[str, dict[str, Any]]:
    found = {made["kind"]: made for made in objects(deployed)}
    assert len(found) == len(objects(deployed))
    return found


def pod_of(deployed: Deployed) -> tuple[dict[str, Any], dict[str, Any]]:
    """The pod and its one container."""
    pod = by_kind(deployed)["Deployment"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    return pod, container


@every_form
@pytest.mark.parametrize("version", ["1.29", "1.37"])
def test_every_object_is_valid(deployed: Deployed, version: str) -> None:
    for made in objects(deployed):
        kubernetes_validate.validate(made, version, strict=True)


def test_the_schemas_know_a_mistake() -> None:
    wrong = kubernetes.deployment(SHARED)
    wrong["spec"]["template"]["spec"]["containers"][0]["livenessProb"] = {}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, "1.29", strict=True)


@every_form
def test_all_speak_of_the_same_pods(deployed: Deployed) -> None:
    found = by_kind(deployed)
    spec = found["Deployment"]["spec"]
    selector, labels = spec["selector"]["matchLabels"], spec["template"]["metadata"]["labels"]
    assert selector and selector.items() <= labels.items()
    assert found["Service"]["spec"]["selector"] == selector
    assert found["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"] == selector
    # A new release must not change what finds the pods.
    assert "app.kubernetes.io/version" in labels and "app.kubernetes.io/version" not in selector
    (spread,) = spec["template"]["spec"]["topologySpreadConstraints"]
    assert spread["labelSelector"]["matchLabels"] == selector
    if "HorizontalPodAutoscaler" in found:
        target = found["HorizontalPodAutoscaler"]["spec"]["scaleTargetRef"]
        assert (target["kind"], target["name"]) == ("Deployment", found["Deployment"]["metadata"]["name"])


@every_form
def test_ports_and_probes_are_those_of_the_service(deployed: Deployed) -> None:
    _, container = pod_of(deployed)
    (port,) = container["ports"]
    arguments = container["args"]
    assert arguments[arguments.index("--port") + 1] == str(port["containerPort"]) == str(kubernetes.PORT)
    (offered,) = by_kind(deployed)["Service"]["spec"]["ports"]
    assert offered["targetPort"] == port["name"]
    probes = {o.path for o in operations() if o.is_probe and o.method == "GET"}
    for name in ("startupProbe", "readinessProbe", "livenessProbe"):
        asked = container[name]["httpGet"]
        assert asked["path"] in probes and asked["port"] == port["name"]
        assert asked["scheme"] == ("HTTPS" if deployed.has_tls else "HTTP")
    assert container["readinessProbe"]["httpGet"]["path"] == "/readyz"
    assert container["livenessProbe"]["httpGet"]["path"] == "/livez"
    annotations = by_kind(deployed)["Deployment"]["spec"]["template"]["metadata"]["annotations"]
    assert annotations["prometheus.io/port"] == str(port["containerPort"])
    assert annotations["prometheus.io/path"] in {o.path for o in operations()}


class Read(dict[str, str]):
    """Variables that remember which of them were asked for."""

    def __init__(self, **values: str) -> None:
        super().__init__(values)
        self.names: set[str] = set()

    def get(self, name: str, default: Any = None) -> Any:
        self.names.add(name)
        return super().get(name, default)


@every_form
def test_the_service_reads_every_variable(deployed: Deployed) -> None:
    _, container = pod_of(deployed)
    asked = Read()
    read_settings(asked)
    names = Counter(entry["name"] for entry in container["env"])
    assert max(names.values()) == 1
    assert {name for name in names if name.startswith("RECOPS_")} <= asked.names
    assert {"RECOPS_STORE", "RECOPS_KEYS_FILE", "RECOPS_WORKERS"} <= set(names)
    plain = {entry["name"]: entry["value"] for entry in container["env"] if "value" in entry}
    found = read_settings({name: value for name, value in plain.items() if name != "RECOPS_RULES"})
    assert (found.timeout_s, found.grace_s, found.workers) == (1.5, 2.5, 2)


@every_form
def test_what_is_mounted_is_there_and_holds_what_is_named(deployed: Deployed) -> None:
    pod, container = pod_of(deployed)
    mounts = {mount["name"]: mount for mount in container["volumeMounts"]}
    assert set(mounts) == {volume["name"] for volume in pod["volumes"]}
    is_written = {name for name, mount in mounts.items() if not mount.get("readOnly")}
    assert is_written == {"tmp"} | ({"store"} if not deployed.is_shared_store else set())
    folders = {mount["mountPath"] for mount in mounts.values()}
    named = {entry["name"]: entry["value"] for entry in container["env"] if entry.get("value", "").startswith("/")}
    for path in named.values():
        assert any(path == folder or path.startswith(f"{folder}/") for folder in folders), path
    if deployed.config:
        data = by_kind(deployed)["ConfigMap"]["data"]
        assert (
            named["RECOPS_RULES"].rpartition("/")[2] in data and named["RECOPS_VERIFY_KEY"].rpartition("/")[2] in data
        )


@every_form
def test_secrets_come_from_secrets(deployed: Deployed) -> None:
    _, container = pod_of(deployed)
    secret = {e["name"]: e["valueFrom"]["secretKeyRef"]["key"] for e in container["env"] if "valueFrom" in e}
    expected = {"RECOPS_STORE"} if deployed.is_shared_store else set()
    assert set(secret) == expected | ({"RECOPS_ASK_KEY"} if deployed.has_ask_key else set())
    assert all(name == key for name, key in secret.items())


@every_form
def test_a_pod_may_do_little(deployed: Deployed) -> None:
    pod, container = pod_of(deployed)
    assert pod["securityContext"]["runAsNonRoot"] and pod["securityContext"]["runAsUser"] > 0
    assert pod["automountServiceAccountToken"] is False and pod["enableServiceLinks"] is False
    own = container["securityContext"]
    assert own["readOnlyRootFilesystem"] and not own["allowPrivilegeEscalation"]
    assert own["capabilities"] == {"drop": ["ALL"]}


def test_a_pod_has_the_time_to_answer_what_it_has_taken() -> None:
    pod, container = pod_of(SHARED)
    # 5 s in which Services forget it, 2.5 s of grace and 10 to the last answer, rounded up, and 10 to close.
    assert pod["terminationGracePeriodSeconds"] == 28
    assert container["lifecycle"]["preStop"]["exec"]["command"] == ["sleep", "5"]


def test_memory_is_guessed_by_bundle_and_workers() -> None:
    _, container = pod_of(SHARED)
    # 256 for the supervisor; each of two workers 256 and twice the bundle of 100 MiB.
    assert container["resources"]["requests"] == {"cpu": "2", "memory": "1168Mi"}
    assert container["resources"]["limits"] == {"memory": "2336Mi"}


def test_pods_are_several_only_where_their_store_is() -> None:
    shared, alone = by_kind(FORMS["shared"]), by_kind(FORMS["one pod"])
    scaling = shared["HorizontalPodAutoscaler"]["spec"]
    assert (scaling["minReplicas"], scaling["maxReplicas"]) == (3, 15)
    assert "replicas" not in shared["Deployment"]["spec"] and "PersistentVolumeClaim" not in shared
    assert alone["Deployment"]["spec"]["replicas"] == 1
    # A second pod beside the first, as a rolling update makes it, would write the same file.
    assert alone["Deployment"]["spec"]["strategy"] == {"type": "Recreate"}
    assert "HorizontalPodAutoscaler" not in alone
    claim = alone["PersistentVolumeClaim"]["metadata"]["name"]
    assert {"name": "store", "persistentVolumeClaim": {"claimName": claim}} in pod_of(FORMS["one pod"])[0]["volumes"]


def test_other_rules_make_new_pods() -> None:
    def annotations(rules: str) -> dict[str, str]:
        deployed = replace(SHARED, config={"rules.yaml": rules})
        return by_kind(deployed)["Deployment"]["spec"]["template"]["metadata"]["annotations"]

    first = annotations("available: true")
    assert first == annotations("available: true") != annotations("available: false")


def test_objects_are_json_and_nothing_is_null() -> None:
    def values(value: Any) -> Iterator[Any]:
        for part in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
            yield from values(part)
        yield value

    for deployed in FORMS.values():
        assert json.loads(json.dumps(objects(deployed))) == objects(deployed)
        assert None not in list(values(objects(deployed)))
