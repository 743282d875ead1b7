"""What a cluster is told of the service: a Deployment with its Service, budget, autoscaler and settings, as objects.

In: `Deployed`, which says what is served and how. Out: objects of the Kubernetes API, ready to be written as YAML. Two
things are left to whoever deploys, for they are secret or the cluster's own: the Secret `recops` (keys of the service,
the address of the store) and what leads calls from outside to the Service. Knows nothing about projects and files.

A pod serves the release of its image and no other, so that a new release is a new image, rolled out pod by pod. What
must be shared by the pods is in PostgreSQL; with SQLite, a file of one machine, there is one pod with a volume.
"""

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

NAME = "recops"
PORT = 3000  # what a Bento's Dockerfile exposes
USER = 1034  # the user that a Bento's Dockerfile makes; its name alone would not prove to a cluster that it is not root
KEYS, CONFIG, TLS, STORE = "/etc/recops/keys", "/etc/recops/config", "/etc/recops/tls", "/var/lib/recops"
KEYS_ENTRY, STORE_ENTRY, ASK_KEY_ENTRY = "keys.json", "RECOPS_STORE", "RECOPS_ASK_KEY"  # of the Secret
TLS_SECRET = f"{NAME}-tls"
MOST_REPLICAS = 5  # times the fewest
CPU_PERCENT = 70
LEAVING_S = 5  # from the decision to end a pod to the word to its process: Services forget the pod meanwhile
CLOSING_S = 10  # from the last answer to the end: the log of answers and the store are closed
MEBIBYTE = 1024**2
# Of a process without a bundle, and of a bundle's items and indexes as Python holds them, by the size of its files.
PROCESS_MEBIBYTES, LOADED_TIMES = 256, 2

Object = dict[str, Any]


@dataclass(frozen=True)
class Deployed:
    """What is served and how. `version`: of the release, a label's 63 characters at most. `environment`: variables of
    the service, none of them secret. `config`: small files of the service by name, as text, and in `config_variables`
    the variable that tells where each lies. `workers` a pod; `bundle_bytes`: what memory is guessed by. `answer_s`:
    the longest that an answer takes. `replicas`: the fewest; with `is_shared_store` a load may bring more."""

    image: str
    version: str
    environment: Mapping[str, str]
    config: Mapping[str, str]
    config_variables: Mapping[str, str]
    workers: int
    bundle_bytes: int
    grace_s: float
    answer_s: float
    replicas: int
    is_shared_store: bool
    has_ask_key: bool
    has_tls: bool

    @property
    def labels(self) -> dict[str, str]:
        """What finds the pods: never changed, for a cluster refuses that."""
        return {"app.kubernetes.io/name": NAME}

    def metadata(self, name: str = NAME) -> Object:
        return {"name": name, "labels": {**self.labels, "app.kubernetes.io/version": self.version}}


def objects(deployed: Deployed) -> list[Object]:
    """Every object, in the order in which they are made."""
    found = [config_map(deployed)] if deployed.config else []
    if not deployed.is_shared_store:
        found.append(volume_claim(deployed))
    found += [service(deployed), deployment(deployed), disruption_budget(deployed)]
    if deployed.is_shared_store:
        found.append(autoscaler(deployed))
    return found


def config_map(deployed: Deployed) -> Object:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": deployed.metadata(), "data": dict(deployed.config)}


def volume_claim(deployed: Deployed) -> Object:
    """Where the one pod keeps its SQLite file."""
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": deployed.metadata(),
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "10Gi"}}},
    }


def service(deployed: Deployed) -> Object:
    name, port = ("https", 443) if deployed.has_tls else ("http", 80)
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": deployed.metadata(),
        "spec": {"selector": deployed.labels, "ports": [{"name": name, "port": port, "targetPort": "http"}]},
    }


def disruption_budget(deployed: Deployed) -> Object:
    """A node may be emptied, one pod after the other."""
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": deployed.metadata(),
        "spec": {"maxUnavailable": 1, "selector": {"matchLabels": deployed.labels}},
    }


def autoscaler(deployed: Deployed) -> Object:
    return {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": deployed.metadata(),
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": NAME},
            "minReplicas": deployed.replicas,
            "maxReplicas": deployed.replicas * MOST_REPLICAS,
            "metrics": [
                {
                    "type": "Resource",
                    "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": CPU_PERCENT}},
                }
            ],
        },
    }


def deployment(deployed: Deployed) -> Object:
    """Where an autoscaler decides how many pods there are, this says nothing of it: applied again, it would undo what
    the autoscaler did."""
    spec: Object = {"selector": {"matchLabels": deployed.labels}}
    if deployed.is_shared_store:
        spec["strategy"] = {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}}
    else:
        spec |= {"replicas": deployed.replicas, "strategy": {"type": "Recreate"}}
    spec["template"] = {
        "metadata": {"labels": deployed.metadata()["labels"], "annotations": annotations(deployed)},
        "spec": pod(deployed),
    }
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": deployed.metadata(), "spec": spec}


def annotations(deployed: Deployed) -> dict[str, str]:
    """Where figures are; whoever reads them needs a key of role read. Files of other content make new pods, which read
    them at their start."""
    found = {
        "prometheus.io/scrape": "true",
        "prometheus.io/port": str(PORT),
        "prometheus.io/path": "/metrics",
        "prometheus.io/scheme": "https" if deployed.has_tls else "http",
    }
    if deployed.config:
        content = "".join(f"{name}\0{text}\0" for name, text in sorted(deployed.config.items()))
        found["recops/config-sha256"] = hashlib.sha256(content.encode()).hexdigest()
    return found


def pod(deployed: Deployed) -> Object:
    volumes: list[tuple[str, str, Object]] = [
        ("tmp", "/tmp", {"emptyDir": {}}),
        ("keys", KEYS, {"secret": {"secretName": NAME, "items": [{"key": KEYS_ENTRY, "path": KEYS_ENTRY}]}}),
    ]
    if deployed.config:
        volumes.append(("config", CONFIG, {"configMap": {"name": NAME}}))
    if deployed.has_tls:
        volumes.append(("tls", TLS, {"secret": {"secretName": TLS_SECRET}}))
    if not deployed.is_shared_store:
        volumes.append(("store", STORE, {"persistentVolumeClaim": {"claimName": NAME}}))
    is_written = {"tmp", "store"}
    mounts = [
        {"name": name, "mountPath": path, **({} if name in is_written else {"readOnly": True})}
        for name, path, _ in volumes
    ]
    return {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,  # those would be variables that begin with RECOPS_
        "terminationGracePeriodSeconds": LEAVING_S + math.ceil(deployed.grace_s + deployed.answer_s) + CLOSING_S,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "runAsGroup": USER,
            "fsGroup": USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "topologySpreadConstraints": [
            {
                "maxSkew": 1,
                "topologyKey": "kubernetes.io/hostname",
                "whenUnsatisfiable": "ScheduleAnyway",
                "labelSelector": {"matchLabels": deployed.labels},
            }
        ],
        "containers": [container(deployed, mounts)],
        "volumes": [{"name": name, **source} for name, _, source in volumes],
    }


def container(deployed: Deployed, mounts: list[Object]) -> Object:
    arguments = ["serve", "--host", "0.0.0.0", "--port", str(PORT)]
    if deployed.has_tls:
        arguments += ["--ssl-certfile", f"{TLS}/tls.crt", "--ssl-keyfile", f"{TLS}/tls.key"]
    return {
        "name": NAME,
        "image": deployed.image,
        "args": arguments,
        "ports": [{"name": "http", "containerPort": PORT}],
        "env": variables(deployed),
        # A release takes its time to load, and once it serves, a worker that is busy is none to be ended.
        "startupProbe": {**probe(deployed, "/readyz"), "periodSeconds": 5, "failureThreshold": 120},
        "readinessProbe": {**probe(deployed, "/readyz"), "periodSeconds": 2, "failureThreshold": 2},
        "livenessProbe": {**probe(deployed, "/livez"), "periodSeconds": 10, "failureThreshold": 6},
        "lifecycle": {"preStop": {"exec": {"command": ["sleep", str(LEAVING_S)]}}},
        "resources": resources(deployed),
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": mounts,
    }


def probe(deployed: Deployed, path: str) -> Object:
    scheme = "HTTPS" if deployed.has_tls else "HTTP"
    return {"httpGet": {"path": path, "port": "http", "scheme": scheme}, "timeoutSeconds": 5}


def variables(deployed: Deployed) -> list[Object]:
    plain = {
        **deployed.environment,
        **{variable: f"{CONFIG}/{name}" for name, variable in deployed.config_variables.items()},
        "RECOPS_WORKERS": str(deployed.workers),
        "RECOPS_KEYS_FILE": f"{KEYS}/{KEYS_ENTRY}",
        # The container's own files are not to be written.
        "BENTOML_HOME": "/tmp/bentoml",
        "HOME": "/tmp",
    }
    if not deployed.is_shared_store:
        plain["RECOPS_STORE"] = f"sqlite:///{STORE}/store.sqlite"
    secret = [STORE_ENTRY] * deployed.is_shared_store + [ASK_KEY_ENTRY] * deployed.has_ask_key
    return [
        *({"name": name, "value": value} for name, value in sorted(plain.items())),
        *({"name": name, "valueFrom": {"secretKeyRef": {"name": NAME, "key": name}}} for name in secret),
    ]


def resources(deployed: Deployed) -> Object:
    """A place to begin: a core for each worker, and memory by the bundle; `kubectl top pod` says what it comes to."""
    loaded = math.ceil(LOADED_TIMES * deployed.bundle_bytes / MEBIBYTE)
    memory = PROCESS_MEBIBYTES + deployed.workers * (PROCESS_MEBIBYTES + loaded)
    return {
        "requests": {"cpu": str(deployed.workers), "memory": f"{memory}Mi"},
        "limits": {"memory": f"{2 * memory}Mi"},
    }
