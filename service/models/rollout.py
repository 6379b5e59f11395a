"""New versions of a served model, by call: load, verify, warm, then swap or put on trial; promote, drop, roll back.

All of it lasts as long as the process: after a restart LATHE_MODELS says what is served. It is for one worker: with
several, a call would reach one of them, and the others would go on as before.

A load takes its time on a thread; every change itself is one step of the event loop. Changes need no lock, and a load
that hangs holds up nothing but other loads, until its time is over.
"""

import asyncio
import logging
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from compression.bundle import Bundle, BundleError
from service.errors import BundleRefused, ConfigurationError, Conflict, Forbidden
from service.models.aside import Aside
from service.models.model import Model
from service.models.registry import Serving, State
from service.models.version import Version
from service.redaction import describe_exception
from service.telemetry import Change

logger = logging.getLogger(__name__)


class Rollout:
    """Changes of the versions of one service; one load at a time, since it needs memory and a core."""

    def __init__(self, serving: Serving) -> None:
        self._serving = serving
        self._loading = asyncio.Lock()
        self._aside = Aside()

    async def load(
        self,
        name: str,
        location: str,
        *,
        on_trial: bool = False,
        percent: float | None = None,
        other_labels: bool = False,
    ) -> Model:
        """Loads a version beside the live one, and makes it the live one, or puts it on trial; another trial ends.

        Where it is that already, nothing changes, and the way back stays.

        Args:
            location: of a bundle or an ensemble, below the root.
            percent: see `Candidate`.
            other_labels: whether its labels may differ from those of the live version.

        Raises:
            Forbidden: no directory is set that bundles may come from.
            BundleRefused: it cannot be served in place of the live one, which stays.
            Conflict: see `_changeable`; or a load that was given up goes on still.
            NotReady, ModelNotFound: see `Serving.model`.
        """
        root = self._serving.settings.bundles_root
        if root is None:
            raise Forbidden("no bundle may be loaded; set LATHE_BUNDLES_ROOT to the directory that they come from")
        self._changeable(name)  # before another load is waited for
        async with self._loading:
            model = self._changeable(name)
            if self._aside.busy:
                raise Conflict("a load that was given up has not ended yet; try again later, or restart the service")
            try:
                version = await self._version(model, location, root, on_trial)
                self._require_fitting(model, version, on_trial, other_labels)
            except Exception as error:
                self._serving.telemetry.version_change(name, "refused")
                reason = str(error) if isinstance(error, ConfigurationError | BundleError) else type(error).__name__
                logger.warning(
                    "model %s keeps version %s, and does not take %r: %s (%s)",
                    name, model.live.id, location[:256], reason, describe_exception(error),
                )  # fmt: skip
                raise BundleRefused(f"{reason}; {name!r} goes on with version {model.live.id}") from error
            return self._take(self._changeable(name), version, on_trial, percent)

    async def promote(self, name: str) -> Model:
        """Makes the version on trial the live one.

        Raises:
            Conflict: there is none.
        """
        model = self._changeable(name)
        model.swap(self._on_trial(model))
        return self._changed(model, "promoted")

    async def drop(self, name: str) -> Model:
        """Ends the trial.

        Raises:
            Conflict: there is none.
        """
        model = self._changeable(name)
        self._on_trial(model)
        model.drop()
        return self._changed(model, "dropped")

    async def roll_back(self, name: str) -> Model:
        """Returns to the version before the live one, at once; also ends a trial.

        Raises:
            Conflict: there is none.
        """
        model = self._changeable(name)
        if model.previous is None:
            raise Conflict(f"{name!r} has no previous version to return to; load one by its path")
        self._serving.require_fitting(name, model.previous.bundle)
        model.roll_back()
        return self._changed(model, "rolled_back")

    def _changeable(self, name: str) -> Model:
        """The model.

        Raises:
            Conflict: there are several workers.
        """
        if self._serving.workers > 1:
            raise Conflict(
                f"this service has {self._serving.workers} workers and a call reaches one of them; "
                "set LATHE_MODELS to the new bundle and restart"
            )
        model = self._serving.model(name)
        if self._serving.state is not State.READY:
            raise self._serving.not_ready()
        return model

    def _on_trial(self, model: Model) -> Version:
        """The version on trial.

        Raises:
            Conflict: there is none.
        """
        if model.candidate is None:
            raise Conflict(f"no version of {model.name!r} is on trial; load one with `canary` or `shadow`")
        return model.candidate.version

    async def _version(self, model: Model, location: str, root: Path, on_trial: bool) -> Version:
        """The version of that location: the live one or the one on trial, where it is that, and else a new one.

        Raises:
            ConfigurationError, BundleError: it cannot be served, or was not loaded in time.
        """
        timeout_ms = self._serving.settings.load_timeout_ms
        try:
            async with asyncio.timeout(timeout_ms / 1e3):
                opened = await self._aside.run(partial(self._serving.loader.open, location, partial(_below, root)))
                if model.candidate is not None and model.candidate.version.is_of(opened):
                    return model.candidate.version
                if model.live.is_of(opened) and not on_trial:
                    return model.live
                return await self._aside.run(partial(self._made, model.name, opened, timeout_ms / 1e3))
        except TimeoutError:
            raise BundleError(f"{location}: was not loaded within {timeout_ms} ms, LATHE_LOAD_TIMEOUT_MS") from None

    def _made(self, name: str, opened: Sequence[tuple[Bundle, float]], within_s: float) -> Version:
        version = self._serving.loader.make(name, opened)
        version.verify(within_s)
        version.warm_up(within_s)
        return version

    def _take(self, model: Model, version: Version, on_trial: bool, percent: float | None) -> Model:
        """Makes a version the live one, or puts it on trial; one that is there already is not changed for another."""
        known = model.candidate is not None and version is model.candidate.version
        if not known:
            model.drop()
        if version is model.live:
            return model
        if not known:
            version.start("candidate")
        if on_trial:
            model.try_out(version, percent)
            return self._changed(model, "trial")
        model.swap(version)
        return self._changed(model, "loaded")

    def _require_fitting(self, model: Model, version: Version, on_trial: bool, other_labels: bool) -> None:
        live = model.live.task
        if version.bundle.manifest.inputs != model.inputs:
            raise ConfigurationError(
                f"it reads {version.bundle.manifest.inputs}, and the live version {model.inputs}; serve it under "
                "another name"
            )
        if version.labels == live.labels and version.task.like(live):
            return
        if not other_labels:
            raise ConfigurationError(
                "its labels, or how many a text may have, or what its scores are, are not those of the live version; "
                "clients may rely on them. Send other_labels: true to change them"
            )
        if on_trial:
            raise ConfigurationError("a version on trial needs the labels of the live one, also with other_labels")
        self._serving.require_fitting(model.name, version.bundle)

    def _changed(self, model: Model, change: Change) -> Model:
        self._serving.telemetry.version_change(model.name, change)
        trial = f", {model.candidate.version.id} on trial" if model.candidate is not None else ""
        logger.info("model %s: %s, version %s is live%s", model.name, change, model.live.id, trial)
        return model


def _below(root: Path, place: str) -> Path:
    """The directory of that name below the root, wherever links lead.

    Raises:
        ConfigurationError: there is none. The same message whether it is elsewhere or nowhere.
    """
    try:
        path = (root / place).resolve()
        found = path.is_dir() and root.resolve() in path.parents
    except (OSError, ValueError, RuntimeError):  # a name that no file can have; links that lead in a circle
        found = False
    if not found:
        raise ConfigurationError(f"{place[:256]!r} is no directory below LATHE_BUNDLES_ROOT")
    return path
