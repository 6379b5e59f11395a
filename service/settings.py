"""What can be set from outside: one frozen object of LATHE_* variables, which `service.environment` reads."""

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, PositiveInt

from service.setting_types import (
    Device,
    DeviceSetting,
    Hosts,
    Jwks,
    LimitsStore,
    NamedLimits,
    NamedModels,
    NamedScopes,
    NamedSentiments,
    Names,
)

PREFIX = "LATHE_"


class Settings(BaseModel):
    """The service's settings; each field is the variable LATHE_<FIELD>."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    models: NamedModels = Field(
        default={"sentiment": "bundles/sentiment", "banking-intents": "bundles/banking-intents"},
        min_length=1,
        description="What is served: NAME=LOCATION, with commas; a location is a bundle's directory or a tag of "
        "BentoML's model store, or an ensemble of them with weights, NAME=A@0.7+B@0.3.",
    )
    directory: Path = Field(
        default=Path(),
        description="Directory that relative paths of other settings start from. Default: where the command was given.",
    )
    ensemble_degraded: bool = Field(
        default=False,
        description="Whether an ensemble is served without members that cannot be loaded; its answers then say "
        "`degraded`. Otherwise that is an error at start.",
    )
    bundles_root: Path | None = Field(
        default=None,
        description="Directory of the bundles that `POST /v1/models/NAME/load` may load; without it, none. Where there "
        "are keys, that needs one made with `lathe keys add NAME --scope admin`.",
    )
    signed_by: Names = Field(
        default=(),
        description="Files of public keys made by `lathe keys signing`, with commas between them: a bundle that is not "
        "signed with one of them is refused, at start and by `POST /v1/models/NAME/load`. Empty: none need be.",
    )
    device: DeviceSetting = Field(
        default=Device(),
        description="Where models run: `cpu`, `cuda`, `tensorrt`; of several GPUs, as in `cuda:0,1`, each takes the "
        "next batch when it is free. A device that is not there, or cannot compute a bundle, is an error at start.",
    )
    streams: int | None = Field(
        default=None,
        ge=1,
        le=1024,
        description="Batches of one model computed at the same time, one thread each. Default: one for each core "
        "that affinity and cgroup quota leave, two for each GPU.",
    )
    batch_tokens: int = Field(
        default=2048, ge=1, description="Tokens in one batch, padding counted; a longer text still goes alone."
    )
    batch_ms: int = Field(
        default=25,
        ge=1,
        description="Milliseconds that a batch should take: it gets no more tokens than are expected to keep to that.",
    )
    batch_window: int = Field(
        default=256, ge=1, description="Waiting texts among which a batch looks for similar lengths."
    )
    queue_texts: int = Field(
        default=2048,
        ge=1,
        description="Texts of one model that may wait; beyond that, 429. API keys share them equally.",
    )
    queue_tokens: int = Field(default=262144, ge=1, description="Tokens of one model that may wait; beyond that, 429.")
    queue_bytes: int = Field(
        default=67108864,
        ge=1,
        description="Bytes of text of all requests that are not answered yet; beyond that, 429. An API key may hold as "
        "many as are free. As many again of bodies whose end has not come.",
    )
    cache_bytes: int = Field(
        default=0,
        ge=0,
        description="Bytes of answers that are kept for texts that come again; 0: none. API keys share them, so that a "
        "fast answer can tell one key that another has sent the same text.",
    )
    request_timeout_ms: int = Field(
        default=10000, ge=1, description="Time a request may take; X-Request-Timeout-Ms can shorten it."
    )
    hang_ms: int = Field(
        default=30000,
        ge=1,
        description="Time after which a batch that is still being computed counts as hung: /livez is 503, so that the "
        "process is replaced.",
    )
    load_timeout_ms: int = Field(
        default=120000,
        ge=1,
        description="Time that `POST /v1/models/NAME/load` may take; beyond that, 422. Other calls go on meanwhile.",
    )
    drain_pause_ms: int = Field(
        default=1000,
        ge=0,
        description="After SIGTERM, time for load balancers to see that /readyz is 503, before the socket closes; "
        "what arrives is still answered.",
    )
    drain_timeout_ms: int = Field(
        default=20000, ge=1, description="Time that accepted requests get to finish after that."
    )
    max_body_bytes: int = Field(default=1048576, ge=1, description="Size of a request body; beyond that, 413.")
    max_inputs: int = Field(default=256, ge=1, description="Texts in one request; beyond that, 413.")
    max_head_bytes: int = Field(
        default=65536, ge=1024, description="Size of a request's first line and headers; beyond that, 431."
    )
    max_headers: int = Field(default=100, ge=16, description="Headers of a request; beyond that, 431.")
    max_target_bytes: int = Field(default=8192, ge=256, description="Length of a request's URL; beyond that, 414.")
    max_connections: int = Field(
        default=10000,
        ge=1,
        description="Open connections, or fewer where `ulimit -n` is lower; for each beyond that, one without a "
        "request is closed, of the address that has most, the one that is so for the longest.",
    )
    head_timeout_ms: int = Field(
        default=10000,
        ge=1,
        description="Time from a request's first byte to the end of its headers, then 408; and for a TLS handshake.",
    )
    tls_certificate: Path | None = Field(
        default=None,
        description="File with the server's certificate and those between it and a root, PEM: the service answers with "
        "TLS, 1.2 or later, and nothing else. Read again when it changes.",
    )
    tls_key: Path | None = Field(
        default=None, description="File with its private key, PEM, not encrypted. Default: it is in the same file."
    )
    tls_client_ca: Path | None = Field(
        default=None,
        description="File with authorities, PEM: clients, probes too, need a certificate of one of them. Keys are "
        "needed all the same.",
    )
    idle_timeout_ms: int = Field(
        default=75000,
        ge=1,
        description="Time that a connection is kept without a request; longer than load balancers reuse theirs.",
    )
    write_timeout_ms: int = Field(
        default=30000, ge=1, description="Time that a client may take to receive an answer that is complete."
    )
    keys_file: Path | None = Field(
        default=None, description="File made by `lathe keys add`; with it every path but the probes needs a key."
    )
    jwt_issuer: str | None = Field(
        default=None,
        description="`iss` of the tokens (JWT, OpenID Connect) that are let in, with a keys file or in its place; with "
        "it every path but the probes needs a token or a key. Needs the next two.",
    )
    jwt_audience: str | None = Field(
        default=None, description="What their `aud` must have: what this service is there."
    )
    jwt_jwks: Jwks | None = Field(
        default=None,
        description="The issuer's public keys (JWKS): a file, or a URL, `https://`, or `http://` of this machine.",
    )
    jwt_leeway_s: int = Field(
        default=30, ge=0, le=600, description="Seconds by which the issuer's clock may differ from this machine's."
    )
    jwt_name_claim: str = Field(
        default="sub", description="The claim with the name that is measured and limited, as the name of a key is."
    )
    jwt_scope_claim: str = Field(
        default="scope",
        description="The claim that says what a token may do: words with spaces between, or a list; with a dot a "
        "member, as `realm_access.roles`.",
    )
    jwt_scopes: NamedScopes = Field(
        default={"predict": ("predict",), "metrics": ("metrics",), "admin": ("admin",)},
        min_length=1,
        description="What the words there mean, as in `lathe:use=predict,ops=metrics,ops=admin`. A token with none of "
        "them is refused. Default: `predict`, `metrics` and `admin` mean themselves.",
    )
    jwt_models_claim: str | None = Field(
        default=None,
        description="The claim with the models that a token may ask; then every token needs it. Default: all.",
    )
    jwt_limits: NamedLimits = Field(
        default={},
        description="Limits of each name, as in `requests_per_s=20,tokens_per_min=100000`; there are "
        "`tokens_per_month` and `concurrent`, too.",
    )
    audit_file: Path | None = Field(
        default=None,
        description="Audit log: a line of JSON for every request but probes and pages, without texts; each line holds "
        "the one before it, and `lathe audit verify` says whether all are as they were written. Without it, none.",
    )
    audit_bytes: PositiveInt = Field(
        default=100_000_000, description="Of the audit log's file, which is then renamed, and a new one begun."
    )
    audit_files: NonNegativeInt = Field(
        default=10, description="Renamed files of the audit log that are kept, FILE.1 being the last one."
    )
    limits_store: LimitsStore = Field(
        default="memory",
        description="Where it is counted what keys and names with limits have used: `memory`, of this process alone, "
        "or the URL of a Redis that all replicas share, `redis://HOST:PORT/NUMBER` (`rediss://` with TLS).",
    )
    limits_without_store: Literal["open", "closed"] = Field(
        default="open",
        description="Whether requests of such keys are let in (`open`) or answered 503 (`closed`) while that Redis "
        "cannot be asked.",
    )
    pseudonym_key_file: Path | None = Field(
        default=None,
        description="File with a key of at least 32 bytes, from which `POST /v1/mask` makes pseudonyms; without it, "
        "that mode is refused.",
    )
    mask_before_predict: Names = Field(
        default=(),
        description="Models, with commas, that read texts masked as by `POST /v1/mask`, `<EMAIL_ADDRESS>` in place of "
        "an address. A request to them has at most 100,000 characters.",
    )
    allowed_hosts: Hosts = Field(
        default=(),
        description="Names that the Host header may have where there are no keys, besides localhost and 127.0.0.1: "
        "`a.example,b.example`, those of a proxy on this machine, for example.",
    )
    calibrated: bool = Field(
        default=False,
        description="Whether scores are calibrated where a request does not say so itself. Otherwise they are the "
        "model's own probabilities; triage's are calibrated always.",
    )
    predict_model: str | None = Field(
        default=None,
        description="The model that POST /predict asks, whose requests name none. Default: the first of LATHE_MODELS.",
    )
    triage: Literal["auto", "on", "off"] = Field(
        default="auto",
        description="Whether there is triage. `auto`: where both of its models are served; `on`: it is an error at "
        "start when they are not; `off`: POST /v1/triage is 404.",
    )
    triage_sentiment: str = Field(default="sentiment", description="The model that triage asks for the sentiment.")
    triage_sentiment_labels: NamedSentiments = Field(
        default={},
        description="What that model's labels mean, as in `LABEL_0=negative,LABEL_1=positive`; several may mean the "
        "same. Names in common use need none: `POSITIVE`, `neg`, `4 stars`, `正面`.",
    )
    triage_intent: str = Field(default="banking-intents", description="The model that triage asks for the intent.")
    # The next three suit the default bundle: chosen on the calibration part of examples/customer_messages.csv.
    neutral_low: float = Field(
        default=0.2, ge=0, le=1, description="Calibrated probability of `positive` from which a message is neutral."
    )
    neutral_high: float = Field(
        default=0.5, ge=0, le=1, description="Calibrated probability of `positive` up to which a message is neutral."
    )
    anger: float = Field(
        default=0.87, ge=0, le=1, description="Calibrated probability of `negative` from which a person takes over."
    )
    min_confidence: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description="Calibrated probability of the intent below which a person takes over. Default: where the intent "
        "model abstains by its own threshold; 0.5 where it has none.",
    )
    hand_over_intents: Names | None = Field(
        default=None,
        description="Intents that always go to a person, with commas. Default: the loss and fraud intents of banking77 "
        "that the intent model has.",
    )

    @property
    def asks_who(self) -> bool:
        """Whether who asks must have a key or a token."""
        return self.keys_file is not None or self.jwt_issuer is not None
