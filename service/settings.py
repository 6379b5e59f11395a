"""What can be set from outside: one frozen object, read once from LATHE_* variables, checked at start."""

import atexit
import difflib
import os
import re
import shutil
import tempfile
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, PositiveInt, ValidationError

from service.errors import ConfigurationError
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
_NAME_CHARACTERS = 100
_PASSWORD = re.compile(r"//[^/@]*@")  # in a URL: it would stand in a log
_FAULT_CHARACTERS = 160  # BentoML adds the whole configuration to what is wrong with it
_MEMBER = re.compile(r"(.+)\.[0-9]+", re.ASCII | re.DOTALL)  # what metrics call a member of an ensemble
# What Kubernetes puts into every pod of a namespace that has a Service whose name begins with "lathe".
_KUBERNETES = re.compile(
    r"LATHE_([A-Z0-9_]+_)?(SERVICE_HOST=.*|SERVICE_PORT(_[A-Z0-9_]+)?=[0-9]+|PORT=(tcp|udp|sctp)://.*"
    r"|PORT_[0-9]+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?=.*)"
)


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
        description="Open connections, or fewer where `ulimit -n` is lower; for each beyond that, the one that has "
        "been without a request for the longest is closed.",
    )
    head_timeout_ms: int = Field(
        default=10000, ge=1, description="Time from a request's first byte to the end of its headers; then 408."
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


def load_settings(
    environment: Mapping[str, str] | None = None, default_models: Mapping[str, str] | None = None
) -> Settings:
    """Reads the settings from the environment.

    Args:
        environment: variables by name; the process's own when left out.
        default_models: what is served where LATHE_MODELS is not set.

    Raises:
        ConfigurationError: an unknown LATHE_ variable or a bad value; names the variable, the value and what it takes.
    """
    environment = os.environ if environment is None else environment
    values: dict[str, Any] = {"models": dict(default_models)} if default_models else {}
    values |= {
        key.removeprefix(PREFIX).lower(): value
        for key, value in environment.items()
        if key.startswith(PREFIX) and value and not _KUBERNETES.fullmatch(f"{key}={value}")
    }
    try:
        settings = _from_directory(Settings.model_validate(values))
    except ValidationError as error:
        raise ConfigurationError("; ".join(_explain(problem, values) for problem in error.errors())) from None
    if settings.neutral_low > settings.neutral_high:
        raise ConfigurationError(
            f"{PREFIX}NEUTRAL_LOW={settings.neutral_low} is above {PREFIX}NEUTRAL_HIGH={settings.neutral_high}; "
            "the neutral band lies between them"
        )
    if settings.predict_model not in (None, *settings.models):
        raise ConfigurationError(
            f"{PREFIX}PREDICT_MODEL={settings.predict_model!r} is not served; "
            f"{PREFIX}MODELS has {', '.join(sorted(settings.models))}"
        )
    _require_distinct_names(settings.models)
    _require_triage_models(settings)
    _require_whole_issuer(settings)
    return settings


def _require_distinct_names(models: Collection[str]) -> None:
    """Refuses names by which a path, or a member of another model in metrics, would be meant."""
    for name in models:
        if "/" in name or name in (".", "..") or not name.isprintable() or len(name) > _NAME_CHARACTERS:
            raise ConfigurationError(
                f"{PREFIX}MODELS: {name[:80]!r} cannot be part of a path; name the model without `/` and control "
                f"characters, in {_NAME_CHARACTERS} characters at most"
            )
        member = _MEMBER.fullmatch(name)
        if member is not None and member[1] in models:
            raise ConfigurationError(
                f"{PREFIX}MODELS: {name!r} is what metrics call a member of {member[1]!r}; name one of them otherwise"
            )


def _require_triage_models(settings: Settings) -> None:
    """Refuses triage that was asked for, by a model's name or by `on`, where a model of it is not served."""
    for field in ("triage_sentiment", "triage_intent"):
        wanted = settings.triage == "on" or (settings.triage == "auto" and field in settings.model_fields_set)
        if wanted and getattr(settings, field) not in settings.models:
            raise ConfigurationError(
                f"{PREFIX}{field.upper()}={getattr(settings, field)!r} is not served; {PREFIX}MODELS has "
                f"{', '.join(sorted(settings.models))}. Name one of them, or set {PREFIX}TRIAGE=off"
            )


def _require_whole_issuer(settings: Settings) -> None:
    """Refuses a part of what tokens need: whoever sets it means that they are checked."""
    missing = [name for name in ("jwt_issuer", "jwt_audience", "jwt_jwks") if getattr(settings, name) is None]
    given = [name for name in sorted(settings.model_fields_set) if name.startswith("jwt_")]
    if given and missing:
        raise ConfigurationError(
            f"{PREFIX}{given[0].upper()} is set, and tokens need "
            f"{' and '.join(PREFIX + name.upper() for name in missing)} too; set that, or none of them"
        )


def override(**values: str | None) -> None:
    """Puts settings that a command line gives before those of the environment; None leaves one as it is."""
    os.environ.update({f"{PREFIX}{name.upper()}": value for name, value in values.items() if value is not None})


def remember_directory() -> None:
    """Makes relative paths mean the same in this process's children, which BentoML starts in a directory of its own."""
    os.environ[f"{PREFIX}DIRECTORY"] = os.path.abspath(os.environ.get(f"{PREFIX}DIRECTORY", ""))


def tokenize_in_one_thread() -> None:
    """Has a text tokenised by the thread that asks: the library's own would not give way to the event loop."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"


def provide_model_store() -> None:
    """Gives BentoML a temporary model store where the user's cannot be made, as in a container under its own user id.

    BentoML makes its model store, in the home directory, when it is imported.

    Raises:
        ConfigurationError: BENTOML_HOME names a place that cannot be written.
    """
    given = os.environ.get("BENTOML_HOME")
    try:
        store = Path(given or "~/bentoml").expanduser()
        for part in ("bentos", "models", "envs", "tmp"):
            (store / part).mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError) as error:  # the latter of a user without a home directory
        if given:
            raise ConfigurationError(
                f"BENTOML_HOME={given!r} cannot be written ({error}); set it to a directory that can"
            ) from error
        temporary = tempfile.mkdtemp(prefix="lathe-")
        atexit.register(shutil.rmtree, temporary, ignore_errors=True)
        os.environ["BENTOML_HOME"] = temporary


def bentoml_misconfigured(error: Exception) -> ConfigurationError | None:
    """What to say of an error of BentoML's where its own configuration file is at fault; None where there is none."""
    file = os.environ.get("BENTOML_CONFIG")
    if not file:
        return None
    fault = " ".join(str(error).split())[:_FAULT_CHARACTERS]
    return ConfigurationError(f"BENTOML_CONFIG={file!r} cannot be used: {fault}; mend it, or unset it")


def _from_directory(settings: Settings) -> Settings:
    fields = ("audit_file", "keys_file", "jwt_jwks", "pseudonym_key_file", "bundles_root")
    paths = {name: getattr(settings, name) for name in fields if isinstance(getattr(settings, name), Path)}
    absolute: dict[str, Any] = {name: settings.directory / path for name, path in paths.items()}
    signed_by = tuple(str(settings.directory / path) for path in settings.signed_by)
    return settings.model_copy(update={**absolute, "signed_by": signed_by})


def _explain(problem: Any, values: Mapping[str, Any]) -> str:
    name = str(problem["loc"][0])
    variable = f"{PREFIX}{name.upper()}"
    if problem["type"] == "extra_forbidden":
        known = [f"{PREFIX}{field.upper()}" for field in Settings.model_fields]
        meant = "".join(f"did you mean {near}? " for near in difflib.get_close_matches(variable, known, 1))
        return f"{variable}: no such setting; {meant}there are {', '.join(known)}"
    description = Settings.model_fields[name].description or ""
    value = _PASSWORD.sub("//***@", str(values.get(name, "")))
    return f"{variable}={value!r}: {problem['msg'].removeprefix('Value error, ')}. It sets: {description}"
