"""Puts a request's texts to models: tokenised once, within the request's time, for as long as its client is there."""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from compression.bundle import Encoded, softmax
from service.attendance import WhileThere
from service.errors import PayloadTooLarge
from service.lifecycle import Model, Serving
from service.limits import timeout_ms
from service.routing import Request

# Tokenising runs at some 10 MB/s; below this it costs less than handing it to a thread does.
_INLINE_CHARACTERS = 4000


@dataclass(frozen=True, slots=True)
class Scored:
    """One model's logits for the texts of a request: (texts, labels), and how the texts were tokenised."""

    model: Model
    logits: npt.NDArray[np.float32]
    encoded: Sequence[Encoded]

    def probabilities(self, temperature: float = 1.0) -> npt.NDArray[np.float64]:
        """(texts, labels)."""
        return softmax(self.logits, temperature)

    def calibrated(self) -> npt.NDArray[np.float64]:
        """Probabilities at the temperature that the bundle was fitted to, (texts, labels)."""
        return self.probabilities(self.model.bundle.manifest.runtime.temperature)

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the last axis."""
        return self.model.bundle.manifest.labels

    @property
    def tokens(self) -> int:
        """Of all texts."""
        return sum(map(len, self.encoded))


class Inference:
    """What every route that asks a model shares. `serving` gives the service's state."""

    def __init__(self, serving: Callable[[], Serving]) -> None:
        self._serving = serving

    async def ask(
        self, request: Request, models: Sequence[Model], texts: Sequence[str], cut: bool = True
    ) -> list[Scored]:
        """Puts the texts to every model at once.

        Args:
            cut: whether a text that is longer than a model's window is cut; otherwise it is refused.

        Raises:
            PayloadTooLarge: too many texts, or one is too long.
            DeadlineExceeded, ClientGone: what still waited in a queue was given up.
            Overloaded, NotReady, InferenceFailed, NotANumber: of one model; what the others had queued is given up.
        """
        serving = self._serving()
        if len(texts) > serving.settings.max_inputs:
            raise PayloadTooLarge(
                f"the request has {len(texts)} inputs; send at most {serving.settings.max_inputs} at a time"
            )
        deadline = time.monotonic() + timeout_ms(request, serving.settings.request_timeout_ms) / 1e3
        async with WhileThere(request.receive):
            if len(models) == 1:  # nothing to share, and no task of its own
                encoded = await self._encode(models[0], texts, cut)
                return [await _score(models[0], encoded, request.tenant, deadline)]
            tokenised: dict[tuple[str, int], list[Encoded]] = {}
            for model in models:
                if _tokenizer(model) not in tokenised:
                    tokenised[_tokenizer(model)] = await self._encode(model, texts, cut)
            asked = [(model, tokenised[_tokenizer(model)]) for model in models]
            tasks = [asyncio.create_task(_score(*each, request.tenant, deadline)) for each in asked]
            try:
                return await asyncio.gather(*tasks)
            finally:
                for task in tasks:
                    task.cancel()

    async def _encode(self, model: Model, texts: Sequence[str], cut: bool) -> list[Encoded]:
        telemetry = self._serving().telemetry

        def encode() -> list[Encoded]:
            return [model.engine.encode(text) for text in texts]

        with telemetry.stage(model.name, "tokenize"):
            inline = sum(map(len, texts)) <= _INLINE_CHARACTERS
            encoded = encode() if inline else await asyncio.to_thread(encode)
        truncated = [place for place, one in enumerate(encoded) if one.truncated]
        if truncated and not cut:
            window = model.bundle.manifest.max_length
            raise PayloadTooLarge(f"inputs.{truncated[0]} has more than {window} tokens; shorten it or send truncate")
        if truncated:
            telemetry.truncated(model.name, len(truncated))
        return encoded


def _tokenizer(model: Model) -> tuple[str, int]:
    """The same for models that tokenise every text alike."""
    manifest = model.bundle.manifest
    return manifest.files[model.bundle.tokenizer_path.name], manifest.max_length


async def _score(model: Model, encoded: Sequence[Encoded], tenant: str, deadline: float) -> Scored:
    return Scored(model, await model.batcher.submit(encoded, tenant, deadline), encoded)
