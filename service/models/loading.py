"""From a location to a version that can answer: located, verified, loaded. Runs on a thread, and takes its time.

A location is a bundle's, or an ensemble's: A@WEIGHT+B@WEIGHT.
"""

import ctypes
import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from compression.bundle import Bundle, BundleError, SigningError, open_bundle
from compression.bundle.memory import memory_left
from compression.bundle.signature import Signers
from service.batching import Batcher, BatchLimits
from service.engine.devices import streams
from service.engine.engine import Engine, Mask
from service.errors import ConfigurationError
from service.masking import Masker
from service.models.cache import ResultCache
from service.models.version import Member, Version
from service.setting_types import members
from service.settings import Settings
from service.telemetry import Telemetry

logger = logging.getLogger(__name__)

Locate = Callable[[str], Path]


def open_members(
    location: str, locate: Locate, signers: Signers | None, degraded: bool = False
) -> list[tuple[Bundle, float]]:
    """The verified bundles of a location, with their weights.

    Args:
        locate: finds the directory of a bundle's location.
        signers: one of whom must have signed each bundle; None: nobody need have.
        degraded: whether members that cannot be opened are left out, all but the last.

    Raises:
        ConfigurationError, BundleError: a bundle is missing or damaged, or the members' labels are not the same.
    """
    try:
        places = members(location)
    except ValueError as error:
        raise ConfigurationError(str(error)) from None
    opened: list[tuple[Bundle, float]] = []
    failure: ConfigurationError | BundleError | None = None
    for place, weight in places:
        try:
            bundle = open_bundle(locate(place))
            if signers is not None:
                signers.require(bundle)
            opened.append((bundle, weight))
        except (ConfigurationError, BundleError) as error:
            if not degraded:
                raise
            logger.warning("without a member of an ensemble, as LATHE_ENSEMBLE_DEGRADED allows: %s", error)
            failure = error
    if not opened:
        assert failure is not None
        raise failure
    (first, _), *others = opened
    for other, _ in others:
        if not other.task.like(first.task):
            raise ConfigurationError(
                f"{other.path} is of the task {other.task.name} ({other.task.function}), and {first.path} of "
                f"{first.task.name} ({first.task.function}); members of an ensemble need the same"
            )
        if other.manifest.inputs != first.manifest.inputs:
            raise ConfigurationError(
                f"{other.path} reads {other.manifest.inputs}, and {first.path} reads {first.manifest.inputs}; members "
                "of an ensemble need the same"
            )
        if other.manifest.labels != first.manifest.labels:
            raise ConfigurationError(
                f"{other.path} has the labels {_some(other.manifest.labels)}, and {first.path} has "
                f"{_some(first.manifest.labels)}; members of an ensemble need the same, in the same order"
            )
    return opened


def signers_of(settings: Settings) -> Signers | None:
    """Those who must have signed what is served; None: nobody need have.

    Raises:
        ConfigurationError: a key cannot be read.
    """
    try:
        return Signers.of([Path(path) for path in settings.signed_by]) if settings.signed_by else None
    except SigningError as error:
        raise ConfigurationError(f"LATHE_SIGNED_BY: {error}") from error


class Loader:
    """Makes versions, as the settings ask.

    Raises:
        ConfigurationError: see `signers_of`.
    """

    def __init__(self, settings: Settings, telemetry: Telemetry) -> None:
        self._settings = settings
        self._telemetry = telemetry
        self._signers = signers_of(settings)
        self._cache = ResultCache(settings.cache_bytes)
        telemetry.cache(lambda: self._cache.size_bytes)

    def load(self, name: str, location: str, locate: Locate, degraded: bool = False) -> Version:
        """Opens the bundles of a location, see `open_members`, and makes their sessions.

        Raises:
            ConfigurationError, BundleError: see there; or a session cannot be made.
        """
        opened = self.open(location, locate, degraded)
        return self.make(name, opened, missing=len(members(location)) - len(opened))

    def open(self, location: str, locate: Locate, degraded: bool = False) -> list[tuple[Bundle, float]]:
        """See `open_members`; signed as the settings ask."""
        return open_members(location, locate, self._signers, degraded)

    def make(self, name: str, opened: Sequence[tuple[Bundle, float]], missing: int = 0) -> Version:
        """A version of open bundles, with their weights.

        Raises:
            ConfigurationError, BundleError: a session cannot be made.
        """
        _give_back_memory()
        if not self._settings.device.gpus:
            require_memory([bundle for bundle, _ in opened])
        names = [name] if len(opened) == 1 else [f"{name}.{number}" for number in range(len(opened))]
        mask = _mask() if name in self._settings.mask_before_predict else None
        return Version(
            [self._member(one, bundle, weight, mask) for one, (bundle, weight) in zip(names, opened, strict=True)],
            missing,
        )

    def _member(self, name: str, bundle: Bundle, weight: float, mask: Mask | None) -> Member:
        settings = self._settings
        engine = Engine(bundle, settings.device, mask)
        limits = BatchLimits(
            streams=settings.streams or streams(settings.device),
            batch_texts=engine.batch_texts(settings.batch_tokens),
            batch_tokens=settings.batch_tokens,
            batch_ms=settings.batch_ms,
            window=settings.batch_window,
            queue_texts=settings.queue_texts,
            queue_tokens=settings.queue_tokens,
            hang_s=settings.hang_ms / 1e3,
        )
        work_clock = None if settings.device.gpus else time.thread_time
        batcher = Batcher(name, engine.infer, limits, self._telemetry, work_clock=work_clock)
        cache = self._cache if settings.cache_bytes else None
        return Member(engine, batcher, weight, cache)


def require_memory(bundles: Sequence[Bundle], more: int = 0) -> None:
    """Refuses bundles for which the control group of this process has no memory left: the kernel would kill it.

    What is asked for is less than they take: the models' bytes, and those of the largest once more, which are held
    while a session is made of them.

    Args:
        more: bytes that will be taken besides.

    Raises:
        ConfigurationError: says how much there is, and how much it takes at least.
    """
    left = memory_left()
    sizes = [bundle.model_path.stat().st_size for bundle in bundles]
    needed = sum(sizes) + max(sizes) + more
    if left is not None and needed > left:
        names = ", ".join(str(bundle.path) for bundle in bundles)
        raise ConfigurationError(
            f"{names}: needs {needed / 1e6:.0f} MB of memory at least, and the limit of this control group (container) "
            f"leaves {max(left, 0) / 1e6:.0f} MB: raise it, or serve fewer or smaller bundles"
        )


def _mask() -> Mask:
    masker = Masker()
    return lambda text: masker.mask(text).text


def _give_back_memory() -> None:
    """Gives the system what versions that have gone have freed: glibc keeps two thirds of it otherwise."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def _some(labels: Sequence[str]) -> str:
    return ", ".join(labels[:5]) + (f" and {len(labels) - 5} more" if len(labels) > 5 else "")
