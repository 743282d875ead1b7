"""Reads params.yaml, the one place for every setting, and says by key what is wrong with it.

One class a group, one group a stage, in the order of the stages. Hyper-parameters of a model and options of a source
are checked by the model and the source themselves (`Config`, `Options`), so that adding one adds no line here.
"""

from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from recops.errors import CallError
from recops.schema import EVENT_SIGNALS, duration_us

M = TypeVar("M", bound=BaseModel)
RATING_METRICS = ("rmse", "mae")  # of `train.task: rating`; the first is the default
Seed = Annotated[int, Field(ge=0, lt=2**63)]  # what every generator takes


class Group(BaseModel):
    """A group of settings: unknown keys are refused, so that a misspelt one is not silently ignored."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class SourceParams(Group):
    """Where events come from. `options` belong to the source named (its class `Options` says which there are)."""

    name: str = "movielens_small"
    path: str | None = Field(None, description="folder or file of the source, relative to the project")
    options: dict[str, Any] = {}
    order: Literal["time", "ordered", "unordered"] = Field(
        "time", description="time: by timestamp; ordered: by row, no timestamps; unordered: neither"
    )
    live: bool = Field(False, description="true: freshness is also judged against `ingest.now`")


class EventKind(Group):
    """What one kind of event means to training."""

    signal: Literal["positive", "negative", "exposure", "ignored"] = Field(
        description="negative: the user turned the item down, which is then never recommended to that user again"
    )
    weight: float = Field(1.0, ge=0)
    min_value: float | None = Field(None, description="positive only at or above this value, else a negative")


class IngestParams(Group):
    events: dict[str, EventKind] = Field(
        {kind: EventKind(signal=signal) for kind, signal in EVENT_SIGNALS.items()},
        min_length=1,
    )
    merges: dict[str, str] = Field(
        {}, description="items that are one: {20838: 20835} counts the events of 20838 as those of 20835"
    )
    now: str | None = Field(None, description="ISO time that counts as now (live sources); the flow sets it")

    @field_validator("merges", mode="before")
    @classmethod
    def _are_ids(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        found: dict[str, str] = {}
        for pair in value.items():
            if any(not isinstance(one, str | int) or isinstance(one, bool) for one in pair):
                raise ValueError(f"{pair[0]!r}: {pair[1]!r}: ids are text or whole numbers")
            one, into = (str(one).strip(" ") for one in pair)  # as the ids of the tables are read
            if not one or not into or one in found:
                raise ValueError(f"{pair[0]!r}: {pair[1]!r}: an id is missing, or stands twice")
            found[one] = into
        return found

    @field_validator("merges")
    @classmethod
    def _end_at_once(cls, value: dict[str, str]) -> dict[str, str]:
        if further := [f"{k} into {v}, and that into {value[v]}" for k, v in value.items() if v in value]:
            raise ValueError(f"an item that others are merged into stays itself; found {further[0]}")
        return value

    @field_validator("now")
    @classmethod
    def _is_iso(cls, value: str | None) -> str | None:
        if value is not None:
            datetime.fromisoformat(value)
        return value


class ValidateParams(Group):
    enabled: bool = True


class SplitParams(Group):
    name: str = "leave_last_out"
    min_user_events: int = Field(3, ge=1, description="users with fewer positives train but are not judged")
    valid_fraction: float = Field(
        0.1, gt=0, lt=1, description="leave_last_out has none: share of events to validate on"
    )
    test_fraction: float = Field(0.1, gt=0, lt=1, description="leave_last_out has none: share of events to test on")
    window_days: float | None = Field(
        None,
        gt=0,
        description="learn from the last so many days of the log only; an item without an event there is out",
    )
    seed: Seed = 42
    pairs: Literal["directed", "undirected"] = Field(
        "directed", description="random; undirected: items are users, and (a, b) falls where (b, a) does"
    )

    @model_validator(mode="after")
    def _something_trains(self) -> "SplitParams":
        if self.valid_fraction + self.test_fraction >= 1:
            raise ValueError(
                f"valid_fraction {self.valid_fraction} and test_fraction {self.test_fraction} leave nothing to train on"
            )
        return self

    @model_validator(mode="after")
    def _only_random_knows_pairs(self) -> "SplitParams":
        if self.pairs == "undirected" and self.name != "random":
            raise ValueError(f"pairs: undirected needs name: random, found {self.name}")
        return self


class EncodeParams(Group):
    """Beside these a key of each encoder's name may hold its options (its class `Options` says which there are)."""

    model_config = ConfigDict(extra="allow")

    encoders: list[str] = []
    users: bool = Field(False, description="also the attributes of users, for models with user_attributes")
    threads: int = Field(2, ge=1, description="CPU threads of networks")
    guess_categories: bool = Field(
        False, description="items with a text and no categories get those of the items most like them, marked so"
    )
    category_names: list[str] = Field(
        [], description="guess_categories: choose one of these by its name, where no item has categories"
    )
    least_certainty: float = Field(
        0.7, ge=0, le=1, description="guess_categories: share of the likest items, or of names, that a guess needs"
    )

    @model_validator(mode="after")
    def _holds_options(self) -> "EncodeParams":
        for key, value in (self.model_extra or {}).items():
            if not isinstance(value, dict):
                raise CallError(f"encode.{key}: no such setting, nor the options of an encoder; found {value!r}")
        if len(set(self.encoders)) < len(self.encoders):
            raise CallError(f"encode.encoders: names one twice; found {self.encoders}")
        return self

    @property
    def options(self) -> dict[str, dict[str, Any]]:
        """The options that are set, by name of the encoder."""
        return dict(self.model_extra or {})


class TrainParams(Group):
    """`model` and `baselines` that are left out follow the task."""

    task: Literal["ranking", "rating"] = Field(
        "ranking", description="ranking: what comes next; rating: which value an event will have, judged by RMSE"
    )
    model: str = "rerank"
    baselines: list[str] = ["most_popular", "recent_popular", "item_knn"]
    seed: Seed = 42
    threads: int = Field(2, ge=1, description="CPU threads; part of the recipe, since results depend on it")
    workers: int = Field(1, ge=1, description="processes that train one model together and share `threads`")
    launcher: Literal["torchrun", "ray"] = Field("torchrun", description="what starts them; ray needs recops[scale]")
    compile: bool = Field(False, description="train through torch.compile; without it where that fails")
    refit: bool = Field(True, description="release the chosen model fitted again on everything, test part included")
    models: dict[str, dict[str, Any]] = Field({}, description="hyper-parameters by model name")

    @model_validator(mode="after")
    def _follow_task(self) -> "TrainParams":
        if self.task == "rating":
            if "model" not in self.model_fields_set:
                self.model = "bayesian_factorization"
            if "baselines" not in self.model_fields_set:
                self.baselines = ["rating_means"]
        return self


class TuneRange(Group):
    """What is tried for one setting: the values of `choice`, or any from `low` to `high`, both included."""

    choice: list[Any] | None = Field(None, min_length=1)
    low: float | None = None
    high: float | None = None
    log: bool = Field(False, description="draw evenly by size: as many from 1 to 10 as from 10 to 100")

    @model_validator(mode="after")
    def _is_choice_or_range(self) -> "TuneRange":
        if self.choice is not None:
            if self.low is not None or self.high is not None or self.log:
                raise ValueError("give either choice, or low and high")
        elif self.low is None or self.high is None:
            raise ValueError("give choice, or low and high")
        elif self.low > self.high:
            raise ValueError(f"low {self.low:g} is above high {self.high:g}")
        elif self.log and self.low <= 0:
            raise ValueError(f"log needs a low above 0, found {self.low:g}")
        return self


class TuneParams(Group):
    model: str | None = Field(None, description="whose hyper-parameters `recops tune` searches; null: train.model")
    trials: int | None = Field(None, ge=1, description="trials of a study, the first included; null: until its budget")
    seed: Seed = 42
    space: dict[str, TuneRange] = Field(
        {},
        description="ranges by hyper-parameter: {low: 0.1, high: 0.5}, for rates with log: true, or "
        "{choice: [64, 128]}; empty: each decimal of the model, around what is set",
    )


class EvaluateParams(Group):
    k: list[Annotated[int, Field(ge=1)]] = Field([5, 10, 20], min_length=1)
    metric: str = Field(
        "ndcg@10", description="the metric that early stopping and the gate look at; of ratings: rmse or mae"
    )
    bootstrap_samples: int = Field(1000, ge=100)
    catalogue: Literal["at_time", "all"] = Field(
        "at_time", description="at_time: an item is a candidate from its first event on; all: always"
    )
    max_users: int | None = Field(None, ge=1, description="judge a seeded sample of users; null judges all")
    seed: Seed = 42


class RecommendParams(Group):
    remove_seen: bool = True


class ExportParams(Group):
    opset: int = Field(20, ge=18, le=23)
    max_links: int = Field(300, ge=1, description="strongest neighbours kept for each item")
    parity_users: int = Field(1000, ge=0)
    sign_key: str | None = Field(None, description="file of the key that signs the bundle; RECOPS_SIGN_KEY wins")
    index: Literal["auto", "none", "ivf", "scan", "hnsw"] = Field(
        "auto", description="how many items are searched (extra ann); auto takes what finds enough, else none"
    )
    exact_up_to: int = Field(100_000, ge=0, description="items; so many are all scored, without an index")
    index_recall: float = Field(0.98, gt=0, le=1, description="of the exact best 50, which an index must find")


class GateParams(Group):
    margin: float = Field(0.01, ge=0, description="share of the champion's metric that may be lost")
    guard_margin: float = Field(0.05, ge=0, description="the same for each guard segment")
    guard_segments: list[str] = ["users:cold", "users:heavy", "items:tail"]
    min_users: int = Field(200, ge=1)
    guard_min_users: int = Field(50, ge=1, description="guard segments of fewer users are not judged")


class ServeParams(Group):
    host: str = "127.0.0.1"
    port: int = Field(3000, ge=1, le=65535)
    workers: int = Field(1, ge=1)
    timeout_s: float = Field(2.0, gt=0)
    max_concurrency: int = Field(64, ge=1)
    max_lag_s: float = Field(0.05, ge=0.001, description="a worker that far behind turns new calls away")
    max_body_bytes: int = Field(1_048_576, ge=1)
    tenants: dict[str, str] = Field(
        {}, description="folders of other projects by tenant, whose keys get what those have released"
    )
    guardrails_s: float = Field(30.0, ge=0.1, description="between two looks at the guardrails of canaries")
    store: str | None = Field(
        None, description="postgresql://HOST/DATABASE instead of a file; RECOPS_STORE takes precedence, for passwords"
    )
    rules: str | None = Field(None, description="file of rules that hold in every answer, such as rules.yaml")
    log_format: Literal["text", "json"] = Field("text", description="json: one JSON object a line")
    access_log: bool = Field(False, description="a line for each request; RECOPS_ACCESS_LOG=1 does the same")
    otlp: str | None = Field(None, description="collector that takes traces, such as http://127.0.0.1:4318")
    grace_s: float = Field(2.0, ge=0, le=20, description="told to end, it answers so long, while /readyz says 503")
    tls_cert: str | None = Field(None, description="file of the certificate and its chain (PEM): HTTPS")
    tls_key: str | None = Field(None, description="file of its private key (PEM)")
    verify_key: str | None = Field(None, description="file of a public key: only bundles signed for it are served")

    @model_validator(mode="after")
    def _fits(self) -> "ServeParams":
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ValueError("tls_cert and tls_key belong together")
        return self


class AskParams(Group):
    """Who phrases the answers of POST /ask and `recops ask`."""

    language_model: str = Field(
        "none", description="none; smollm2, which recops starts itself (extra llm); with url the model's name there"
    )
    url: str | None = Field(None, description="OpenAI-compatible server, such as http://127.0.0.1:8000/v1")
    key_env: str | None = Field(None, description="environment variable that holds the server's key")
    timeout_s: float = Field(5.0, gt=0, description="after that the template answers")
    max_tokens: int = Field(96, ge=1, le=512)
    max_concurrency: int = Field(2, ge=1, description="calls of the language model at once; others get the template")
    understands: bool = Field(False, description="the language model also proposes what a question asks for")

    @model_validator(mode="after")
    def _fits(self) -> "AskParams":
        if self.url is not None and not self.url.startswith(("http://", "https://")):
            raise ValueError("url must start with http:// or https://")
        if self.url is not None and self.language_model == "none":
            raise ValueError("url needs language_model, the name of the model on that server")
        if self.url is None and self.language_model not in ("none", "smollm2"):
            raise ValueError(f"language_model {self.language_model!r} needs url; without one: none or smollm2")
        if self.url is None and self.key_env is not None:
            raise ValueError("key_env is of use only with url")
        return self


class FeedbackParams(Group):
    window: str = Field("1d", description="what follows an answer within this time is put down to it: 30m, 12h, 7d")

    @property
    def window_us(self) -> int:
        return duration_us(self.window)

    @field_validator("window")
    @classmethod
    def _is_time(cls, value: str) -> str:
        duration_us(value)
        return value


class DriftParams(Group):
    psi: float = Field(0.2, gt=0, description="population stability index that counts as drift")
    effect: float = Field(0.1, gt=0, description="KS distance or Cramer's V that counts as drift")
    fall: float = Field(0.2, gt=0, description="relative fall of online hit rate or NDCG that counts as drift")
    p_value: float = Field(0.01, gt=0, lt=1, description="after Benjamini-Hochberg")
    min_events: int = Field(500, ge=1, description="smaller windows are not judged")
    window_days: float = Field(7.0, gt=0, description="length of the window that the monitor flow compares")
    min_features: int = Field(1, ge=1, description="features that must drift before the verdict is drift")


class RetrainParams(Group):
    max_age_days: float = Field(30.0, gt=0)
    cooldown_minutes: float = Field(60.0, ge=0, description="after a training nothing but a person starts another")
    max_per_day: int = Field(4, ge=1, description="trainings that triggers begin within 24 hours")
    new_share: float = Field(0.2, gt=0, description="new events, as a share of those trained on: enough to train")
    online_days: float = Field(7.0, gt=0, description="length of the two periods whose hit rates are compared")
    online_fall: float = Field(0.1, ge=0, lt=1, description="share of the first days' hit rate that may be lost")


class ReleaseParams(Group):
    """How a bundle that passed the gate comes to be served; the first release of a project always directly."""

    strategy: Literal["direct", "canary"] = Field(
        "direct", description="direct: at once; canary: first in shadow, then shown to some users"
    )
    shadow_hours: float = Field(1.0, ge=0, description="so long nobody sees its answers; 0: no shadow")
    canary_hours: float = Field(24.0, gt=0, description="so long it answers some users, unless a guardrail halts it")
    canary_share: float = Field(0.1, gt=0, lt=1, description="of the users")
    canary_users: int = Field(100, ge=1, description="users whom it must have answered before all get it")
    guardrails: list[str] = Field(
        ["hit_rate:0.05", "fallback_share", "empty_share"], min_length=1, description="METRIC or METRIC:SHARE to lose"
    )


class RetentionParams(Group):
    """What the nightly run removes: what is older than `days` and not among the newest `releases`."""

    releases: int = Field(10, ge=2, description="so many of the newest are kept however old they are")
    days: float = Field(30.0, gt=0, description="what is younger is kept: releases, Bentos, DVC's cache, runs")
    feedback_days: float | None = Field(
        None, gt=0, description="events told to the service are trained on so long; null: for ever"
    )


class UpParams(Group):
    """The Prefect server and its workers, as `recops up` starts them."""

    server_port: int = Field(4200, ge=1, le=65535, description="of the Prefect server, on loopback")
    database: str | None = Field(
        None,
        description="postgresql://HOST/DATABASE of the Prefect server instead of a file; RECOPS_PREFECT_DATABASE takes "
        "precedence, for passwords",
    )
    workers: int = Field(1, ge=1, description="processes that run flows; more than one needs a database")

    @field_validator("database")
    @classmethod
    def _is_postgresql(cls, value: str | None) -> str | None:
        if value is not None and not value.startswith(("postgresql://", "postgres://")):
            raise ValueError("must start with postgresql://")
        return value


class EmailParams(Group):
    """Who is written to, and through which server. The password is in RECOPS_ALERT_SMTP_PASSWORD."""

    to: list[str] = Field(min_length=1)
    sender: str
    host: str
    port: int = Field(587, ge=1, le=65535)
    security: Literal["starttls", "tls", "none"] = "starttls"
    user: str | None = None

    @field_validator("to", "sender")
    @classmethod
    def _is_address(cls, value: Any) -> Any:
        for one in [value] if isinstance(value, str) else value:
            if "@" not in one or any(c.isspace() or c == "," for c in one):
                raise ValueError(f"no address: {one!r}")
        return value

    @model_validator(mode="after")
    def _fits(self) -> "EmailParams":
        if self.user is not None and self.security == "none":
            raise ValueError("security: none would send the password of `user` for all to read")
        return self


class AlertParams(Group):
    """Who is told, and of what. The address of a chat (Slack's format) is a secret: RECOPS_ALERT_SLACK."""

    kinds: list[Literal["refused_data", "failed_gate", "halted_canary", "stale_model"]] = [
        "refused_data",
        "failed_gate",
        "halted_canary",
        "stale_model",
    ]
    webhook: str | None = Field(
        None, description="takes each alert as JSON; RECOPS_ALERT_WEBHOOK wins, RECOPS_ALERT_WEBHOOK_SECRET signs"
    )
    email: EmailParams | None = Field(
        None, description="{to: [ops@shop.example], sender: recops@shop.example, host: smtp.shop.example, user: recops}"
    )
    repeat_hours: float = Field(24.0, ge=0, description="the same is not said again within")
    stale_days: float | None = Field(
        None, gt=0, description="since the promotion of what is served; null: 1.5 times retrain.max_age_days"
    )

    @field_validator("webhook")
    @classmethod
    def _is_http(cls, value: str | None) -> str | None:
        if value is not None and not value.startswith(("http://", "https://")):
            raise ValueError("must start with http:// or https://")
        return value


class Params(Group):
    """All of params.yaml. Every group may be left out: its defaults then hold."""

    source: SourceParams = SourceParams()
    ingest: IngestParams = IngestParams()
    validate_: ValidateParams = Field(ValidateParams(), alias="validate")
    split: SplitParams = SplitParams()
    encode: EncodeParams = EncodeParams()
    train: TrainParams = TrainParams()
    tune: TuneParams = TuneParams()
    evaluate: EvaluateParams = EvaluateParams()
    recommend: RecommendParams = RecommendParams()
    export: ExportParams = ExportParams()
    gate: GateParams = GateParams()
    serve: ServeParams = ServeParams()
    ask: AskParams = AskParams()
    feedback: FeedbackParams = FeedbackParams()
    drift: DriftParams = DriftParams()
    retrain: RetrainParams = RetrainParams()
    up: UpParams = UpParams()
    alerts: AlertParams = AlertParams()
    release: ReleaseParams = ReleaseParams()
    retention: RetentionParams = RetentionParams()

    @property
    def kinds(self) -> dict[str, EventKind]:
        """What each kind of event means: as `ingest.events` says and, of the kinds that the service may be told beside
        those of the log, as usual. A model of ratings knows only kinds that have been said to hold ratings."""
        usual = IngestParams().events if self.train.task == "ranking" else {}
        return {**usual, **self.ingest.events}

    @model_validator(mode="after")
    def _fit_task(self) -> "Params":
        """`evaluate.metric` follows the task where it is left out. Raises CallError where a setting contradicts it."""
        if self.train.task == "ranking":
            return self
        if "metric" not in self.evaluate.model_fields_set:
            self.evaluate = self.evaluate.model_copy(update={"metric": RATING_METRICS[0]})
        if self.evaluate.metric not in RATING_METRICS:
            raise CallError(
                f"evaluate.metric: train.task is rating, which is judged by {' or '.join(RATING_METRICS)}; found "
                f"{self.evaluate.metric!r}"
            )
        for name, kind in self.ingest.events.items():
            if kind.signal == "positive" and kind.min_value is not None:
                raise CallError(
                    f"ingest.events.{name}.min_value: train.task is rating, which learns from low values as well; "
                    f"found {kind.min_value:g}; take the key out"
                )
        return self


def checked(kind: type[M], values: Any, where: str) -> M:
    """`values` as the model `kind`; raises CallError naming each key under `where` that is wrong."""
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        lines = []
        for e in error.errors():
            key = ".".join([where, *map(str, e["loc"])]) if where else ".".join(map(str, e["loc"]))
            is_told = e["type"] == "missing" or isinstance(e["input"], dict)  # a whole group may hold a password
            found = "" if is_told else f" (found {e['input']!r})"
            own = e.get("ctx", {}).get("error")  # a CallError of ours names its key and what was found itself
            lines.append(str(own) if isinstance(own, CallError) else f"{key}: {e['msg']}{found}")
        raise CallError("; ".join(lines)) from None


def read_params(path: Path) -> Params:
    """Parameters from `path`. Raises CallError naming file and key when they cannot be read or used."""
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CallError(f"{path}: no such file; `recops init DIR --events F` writes one") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise CallError(f"{path}: not readable as YAML: {error}") from None
    if values is not None and not isinstance(values, dict):
        raise CallError(f"{path}: expected groups of settings, found {type(values).__name__}")
    try:
        return checked(Params, values or {}, "")
    except CallError as error:
        raise CallError(f"{path}: {error}") from None
