"""The values that settings take: how the text of a variable becomes one, and which are refused."""

import ipaddress
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, PositiveInt

_MOST_MEMBERS = 16
_HOST = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9._-]*[A-Za-z0-9_])?|\[[0-9A-Fa-f:.]+\]")


@dataclass(frozen=True)
class Device:
    """Where models run.

    Attributes:
        gpus: their numbers, as CUDA counts them; none on the CPU.
    """

    kind: str = "cpu"  # or cuda, or tensorrt
    gpus: tuple[int, ...] = ()

    @classmethod
    def parse(cls, text: str) -> "Device":
        """Reads `cpu`, `cuda` (the first GPU), `cuda:0,1`, or the same of `tensorrt`.

        Raises:
            ValueError: it is none of these.
        """
        if text == "cpu":
            return cls()
        match = re.fullmatch(r"(cuda|tensorrt)(?::([0-9]+(?:,[0-9]+)*))?", text)
        if match is None:
            raise ValueError(f"{text!r} is not cpu, cuda, tensorrt, or one of the last two with GPUs, as in cuda:0,1")
        kind, numbers = match.groups(default="0")
        return cls(kind, tuple(dict.fromkeys(map(int, numbers.split(",")))))

    def __str__(self) -> str:
        return ":".join(filter(None, (self.kind, ",".join(map(str, self.gpus)))))


def _device(value: Any) -> Any:
    return Device.parse(value) if isinstance(value, str) else value


def _named_models(value: Any) -> Any:
    """Parses `name=location,name=location`; a comma that no name follows belongs to a path."""
    if not isinstance(value, str):
        return value
    models: dict[str, str] = {}
    for item in filter(None, (part.strip(" ,") for part in re.split(r",(?=[^,=/]*=)", value))):
        name, separator, location = item.partition("=")
        if not separator or not name or not location:
            raise ValueError(f"{item!r} is not NAME=LOCATION")
        if name in models:
            raise ValueError(f"{name!r} is named twice")
        members(location)
        models[name] = location
    return models


def members(location: str) -> tuple[tuple[str, float], ...]:
    """The bundles of a location and their weights: of `A@0.7+B@0.3` those two; of anything else itself.

    Raises:
        ValueError: a weight is not a number above 0, or there are too many.
    """
    parts = [part.rpartition("@") for part in location.split("+")]
    if len(parts) == 1 or not all(place and _is_number(weight) for place, _, weight in parts):
        return ((location, 1.0),)
    weights = [float(weight) for _, _, weight in parts]
    if not all(0 < weight < math.inf for weight in weights):
        raise ValueError(f"{location!r} has a weight that is not a number above 0")
    if sum(weights) == math.inf:
        raise ValueError(f"{location!r} has weights whose sum is too large for a number; write smaller ones")
    if len(parts) > _MOST_MEMBERS:
        raise ValueError(f"the ensemble has {len(parts)} members, each with memory of its own; at most {_MOST_MEMBERS}")
    return tuple((place, float(weight)) for place, _, weight in parts)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _names(value: Any) -> Any:
    """Parses `a,b,c`."""
    return tuple(filter(None, (part.strip() for part in value.split(",")))) if isinstance(value, str) else value


def _hosts(names: tuple[str, ...]) -> tuple[str, ...]:
    for name in names:
        if _HOST.fullmatch(name) is None:
            raise ValueError(f"{name!r} is no host name; write it without scheme, port and wildcard, as a.example")
    return names


def _named_sentiments(value: Any) -> Any:
    """Parses `label=positive,label=negative`; a label may hold `=` itself."""
    if not isinstance(value, str):
        return value
    pairs = [item.strip().rpartition("=") for item in value.split(",") if item.strip()]
    for label, _, sentiment in pairs:
        if not label:
            raise ValueError(f"{sentiment!r} is not LABEL=SENTIMENT")
    return {label.strip(): sentiment.strip() for label, _, sentiment in pairs}


def _limits_store(text: str) -> str:
    if text != "memory" and not re.fullmatch(r"rediss?://\S+", text):
        raise ValueError("it is neither memory nor the URL of a Redis, redis://HOST:PORT/NUMBER")
    return text


def _jwks(value: Any) -> Any:
    """Parses a path or a URL; what comes over the network in the clear could be anybody's."""
    if not isinstance(value, str) or "://" not in value:
        return Path(value)
    parts = urlsplit(value)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username is not None or parts.fragment:
        raise ValueError("it is neither a path nor a URL of a JWKS, https://HOST/PATH")
    if parts.scheme == "http" and not _is_this_machine(parts.hostname):
        raise ValueError("whoever is on the way could put keys of their own in; write https://")
    return value


def _is_this_machine(host: str) -> bool:
    """Whether a name or an address is the loopback's."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _pairs(value: Any) -> Any:
    """Parses `word=meaning,word=meaning`; a word may be named several times, and holds `=` itself."""
    if not isinstance(value, str):
        return value
    found: dict[str, list[str]] = {}
    for item in filter(None, (part.strip() for part in value.split(","))):
        word, separator, meaning = item.rpartition("=")
        if not separator or not word.strip():
            raise ValueError(f"{item!r} is not WORD=SCOPE")
        found.setdefault(word.strip(), []).append(meaning.strip())
    return found


def _amounts(value: Any) -> Any:
    """Parses `limit=number,limit=number`."""
    if not isinstance(value, str):
        return value
    pairs = [item.strip().partition("=") for item in value.split(",") if item.strip()]
    return {name.strip(): amount.strip() for name, _, amount in pairs}


DeviceSetting = Annotated[Device, BeforeValidator(_device)]
NamedModels = Annotated[dict[str, str], BeforeValidator(_named_models)]
Names = Annotated[tuple[str, ...], BeforeValidator(_names)]
LimitsStore = Annotated[str, AfterValidator(_limits_store)]
Jwks = Annotated[Path | str, BeforeValidator(_jwks)]
Hosts = Annotated[tuple[str, ...], BeforeValidator(_names), AfterValidator(_hosts)]
NamedSentiments = Annotated[dict[str, Literal["negative", "neutral", "positive"]], BeforeValidator(_named_sentiments)]
NamedScopes = Annotated[dict[str, tuple[Literal["predict", "metrics", "admin"], ...]], BeforeValidator(_pairs)]
NamedLimits = Annotated[
    dict[Literal["requests_per_s", "tokens_per_min", "tokens_per_month", "concurrent"], PositiveInt],
    BeforeValidator(_amounts),
]
