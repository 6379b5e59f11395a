"""The variables of this process: read into the settings once, checked at start, and set for libraries and children."""

import atexit
import difflib
import os
import re
import shutil
import tempfile
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from service.errors import ConfigurationError
from service.settings import PREFIX, Settings

_NAME_CHARACTERS = 100
_PASSWORD = re.compile(r"//[^/@]*@")  # in a URL: it would stand in a log
_FAULT_CHARACTERS = 160  # BentoML adds the whole configuration to what is wrong with it
_MEMBER = re.compile(r"(.+)\.[0-9]+", re.ASCII | re.DOTALL)  # what metrics call a member of an ensemble
# What Kubernetes puts into every pod of a namespace that has a Service whose name begins with "lathe".
_KUBERNETES = re.compile(
    r"LATHE_([A-Z0-9_]+_)?(SERVICE_HOST=.*|SERVICE_PORT(_[A-Z0-9_]+)?=[0-9]+|PORT=(tcp|udp|sctp)://.*"
    r"|PORT_[0-9]+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?=.*)"
)


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
    _require_served(settings)
    _require_distinct_names(settings.models)
    _require_triage_models(settings)
    _require_whole_issuer(settings)
    _require_certificate(settings)
    return settings


def _not_served(setting: str, settings: Settings, remedy: str = "") -> ConfigurationError:
    return ConfigurationError(
        f"{setting} is not served; {PREFIX}MODELS has {', '.join(sorted(settings.models))}{remedy}"
    )


def _require_served(settings: Settings) -> None:
    """Refuses models that a setting names, and that are not served."""
    if settings.predict_model not in (None, *settings.models):
        raise _not_served(f"{PREFIX}PREDICT_MODEL={settings.predict_model!r}", settings)
    for name in settings.mask_before_predict:
        if name not in settings.models:
            raise _not_served(f"{PREFIX}MASK_BEFORE_PREDICT: {name!r}", settings)


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
            setting = f"{PREFIX}{field.upper()}={getattr(settings, field)!r}"
            raise _not_served(setting, settings, f". Name one of them, or set {PREFIX}TRIAGE=off")


def _require_whole_issuer(settings: Settings) -> None:
    """Refuses a part of what tokens need: whoever sets it means that they are checked."""
    missing = [name for name in ("jwt_issuer", "jwt_audience", "jwt_jwks") if getattr(settings, name) is None]
    given = [name for name in sorted(settings.model_fields_set) if name.startswith("jwt_")]
    if given and missing:
        raise ConfigurationError(
            f"{PREFIX}{given[0].upper()} is set, and tokens need "
            f"{' and '.join(PREFIX + name.upper() for name in missing)} too; set that, or none of them"
        )


def _require_certificate(settings: Settings) -> None:
    """Refuses a part of TLS without the whole: whoever sets it means that nothing is sent in the clear."""
    for name in ("tls_key", "tls_client_ca"):
        if getattr(settings, name) is not None and settings.tls_certificate is None:
            raise ConfigurationError(
                f"{PREFIX}{name.upper()} is set, and TLS needs {PREFIX}TLS_CERTIFICATE too; set that, or unset this"
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
    paths = {name: value for name, value in settings if isinstance(value, Path) and name != "directory"}
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
