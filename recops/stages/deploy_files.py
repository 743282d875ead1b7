"""`recops deploy-files`: the promoted release as a Dockerfile and a file of Kubernetes objects.

In: a project with a release, its Bento, and keys. Out: `Dockerfile`, which is the Bento's own as BentoML wrote it
and is built in the Bento's folder, and `kubernetes.yaml` for `kubectl apply`. No secret is written into either.
"""

import re
import shlex
from pathlib import Path
from urllib.parse import urlsplit

import yaml

from recops import language_model
from recops.bundle import read_pointer, release_folder, write_atomically
from recops.errors import CallError
from recops.params import AskParams
from recops.release import kubernetes
from recops.release.bento import bento_folder, bento_tag
from recops.release.kubernetes import ASK_KEY_ENTRY, KEYS_ENTRY, STORE_ENTRY, TLS_SECRET, Deployed
from recops.serving.guard import is_loopback
from recops.serving.keys import read_keys
from recops.serving.ruleset import read_rules
from recops.serving.settings import read_settings
from recops.signing import load_public
from recops.stages import ask
from recops.stages.project import Project
from recops.stages.serve import as_environment, log_environment, verify_key

# As the specification of references has it: a registry, parts of a path, a tag and a digest.
_PART = r"[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*"
IMAGE = re.compile(
    rf"([a-zA-Z0-9]([a-zA-Z0-9.-]*[a-zA-Z0-9])?(:\d+)?/)?{_PART}(/{_PART})*"
    r"(?P<tag>:\w[\w.-]{0,127})?(?P<digest>@sha256:[0-9a-f]{64})?",
    re.ASCII,
)
MANIFESTS = "kubernetes.yaml"
LARGEST_CONFIG = 1_000_000  # bytes; a cluster takes no larger one


def deploy_files(project: Project, out: Path, image: str, replicas: int | None) -> list[tuple[str, str]]:
    """Writes both files into `out` and returns what was done and what to call next, as (word, text).

    Raises CallError where nothing is released, the release has no Bento or there are no keys, for what a cluster cannot
    reach (an SQLite file for more than one pod, a language model on this machine), and what else is wrong with a file.
    """
    pointer = read_pointer(project.releases)
    if pointer is None:
        raise CallError(f"{project.releases}: nothing is released yet; run: recops run")
    bento = bento_folder(pointer.release, project.environment())
    if not bento.is_dir():
        raise CallError(f"{bento}: no Bento of the served release; `recops run` builds that of each release")
    if not project.keys_file.exists() or not read_keys(project.keys_file):
        raise CallError(f"{project.keys_file}: holds no keys, so that nobody could call; `recops keys add` makes one")
    version = bento_tag(pointer.release).partition(":")[2]
    bundle = release_folder(project.releases, pointer.release)
    deployed = _deployed(project, _image(image, version), version, replicas, bundle)
    if out.exists() and not out.is_dir():
        raise CallError(f"{out}: is a file; name a folder")
    out.mkdir(parents=True, exist_ok=True)
    dockerfile, manifests = out / "Dockerfile", out / MANIFESTS
    write_atomically(dockerfile, (bento / "env" / "docker" / "Dockerfile").read_text(encoding="utf-8"))
    about = f"# Release {pointer.release}, by recops deploy-files. Needs the Secret `{kubernetes.NAME}` beforehand.\n"
    write_atomically(manifests, about + yaml.safe_dump_all(kubernetes.objects(deployed), sort_keys=False))
    return [
        ("Release", pointer.release[:12]),
        ("Wrote", f"{dockerfile}, {manifests}"),
        ("Build", shlex.join(["docker", "build", "-t", deployed.image, "-f", str(dockerfile), str(bento)])),
        *_secrets(project, deployed),
        # By the server: kubectl alone keeps each object once more in an annotation, which may have 256 KiB.
        ("Apply", shlex.join(["kubectl", "apply", "--server-side", "-f", str(manifests)])),
        *([] if deployed.is_shared_store else [("One pod", f"{ONE_MACHINE}. The volume of this pod begins empty")]),
    ]


ONE_MACHINE = (
    "the store is an SQLite file, which is of one machine; set serve.store or RECOPS_STORE to "
    "postgresql://HOST/DATABASE before a promotion, which puts the histories of users there"
)


def _deployed(project: Project, image: str, version: str, replicas: int | None, bundle: Path) -> Deployed:
    params = project.params
    if params.serve.tenants:
        raise CallError(
            "serve.tenants: an image holds the release of one project; deploy that of each tenant by itself"
        )
    is_shared = not project.store_url.startswith("sqlite:")
    if replicas is not None and replicas > 1 and not is_shared:
        raise CallError(f"--replicas {replicas}: {ONE_MACHINE}")
    for named, url in (("ask.url", params.ask.url), ("serve.otlp", params.serve.otlp)):
        if url is not None and "@" in urlsplit(url).netloc:
            raise CallError(f"{named}: holds a name or a password, which would stand in {MANIFESTS} for all to read")
        if url is not None and is_loopback(urlsplit(url).hostname or ""):
            raise CallError(f"{named}: {url} is this machine, which a pod cannot reach")
    environment = {**as_environment(params), **log_environment(params.serve), **_ask_environment(params.ask)}
    settings = read_settings(environment)
    files: dict[str, tuple[Path, str]] = {}
    if rules := project.rules_file:
        read_rules(rules)
        files[f"rules{rules.suffix}"] = (rules, "RECOPS_RULES")
    if key := verify_key(project):
        load_public(key)
        files["verify.pem"] = (key, "RECOPS_VERIFY_KEY")
    for path, _ in files.values():
        if path.stat().st_size > LARGEST_CONFIG:
            raise CallError(f"{path}: larger than the {LARGEST_CONFIG:,} bytes that a ConfigMap takes")
    return Deployed(
        image=image,
        version=version,
        environment=environment,
        config={name: path.read_text(encoding="utf-8") for name, (path, _) in files.items()},
        config_variables={name: variable for name, (_, variable) in files.items()},
        workers=params.serve.workers,
        bundle_bytes=sum(file.stat().st_size for file in bundle.rglob("*") if file.is_file()),
        grace_s=settings.grace_s,
        answer_s=max(settings.timeout_s, 2 * settings.ask_timeout_s if settings.ask_url else 0),
        replicas=replicas or (2 if is_shared else 1),
        is_shared_store=is_shared,
        has_ask_key=params.ask.key_env is not None,
        has_tls=project.tls is not None,
    )


def _image(name: str, version: str) -> str:
    found = IMAGE.fullmatch(name)
    if found is None:
        raise CallError(f"--image {name}: no name of an image, such as registry.shop.example/recops")
    return name if found["tag"] or found["digest"] else f"{name}:{version}"


def _ask_environment(params: AskParams) -> dict[str, str]:
    """Where the language model is, without its key."""
    if params.url is None and params.language_model == language_model.SMOLLM2:
        raise CallError(
            f"ask.language_model: {language_model.SMOLLM2} runs beside `recops serve`; name a server in ask.url"
        )
    return {name: value for name, value in ask.environment(params, params.url, None).items() if value}


def _secrets(project: Project, deployed: Deployed) -> list[tuple[str, str]]:
    words = ["kubectl", "create", "secret", "generic", kubernetes.NAME]
    words.append(f"--from-file={KEYS_ENTRY}={project.keys_file}")
    if deployed.is_shared_store:
        words.append(f"--from-literal={STORE_ENTRY}=postgresql://USER:PASSWORD@HOST/DATABASE")
    if deployed.has_ask_key:
        words.append(f"--from-literal={ASK_KEY_ENTRY}=KEY")
    found = [("Secret", shlex.join(words))]
    if project.tls:
        cert, key = map(str, project.tls)
        found.append(
            ("TLS", shlex.join(["kubectl", "create", "secret", "tls", TLS_SECRET, "--cert", cert, "--key", key]))
        )
    return found
