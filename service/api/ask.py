"""Puts a request's texts, or pairs, to models: tokenised once, within its time, for as long as its client is there."""

from collections.abc import Mapping, Sequence

from compression.bundle import Input, InputKind
from service.errors import InvalidRequest, PayloadTooLarge
from service.http.disconnect import WhileThere
from service.http.messages import Request
from service.masking import require_maskable
from service.models.intake import Intake
from service.models.model import Model
from service.models.options import CallOptions
from service.models.version import Scored, together
from service.settings import Settings
from service.tenant import Tenant

_WRITTEN: Mapping[InputKind, str] = {
    "texts": "each as a string",
    "pairs": 'each as {"text": ..., "text_pair": ...}',
}


def require_few(inputs: Sequence[object], settings: Settings) -> None:
    """Refuses a request of too many inputs.

    Raises:
        PayloadTooLarge: it has more than LATHE_MAX_INPUTS.
    """
    if len(inputs) > settings.max_inputs:
        raise PayloadTooLarge(f"the request has {len(inputs)} inputs; send at most {settings.max_inputs} at a time")


class Inference:
    """What every route that asks a model shares.

    Args:
        models: what is served, by name, at any time.
        intake: the service's.
        written: how the protocol has texts, and pairs of them; for messages.
    """

    def __init__(
        self,
        settings: Settings,
        models: Mapping[str, Model],
        intake: Intake,
        written: Mapping[InputKind, str] = _WRITTEN,
    ) -> None:
        self._settings = settings
        self._intake = intake
        self._models = models
        self._written = written

    def admit(self, tenant: Tenant, deadline: float) -> None:
        """Rejects a request of that key, with that deadline, for which no model has room.

        Raises:
            Overloaded: no model has room, or time, for a single text.
        """
        models = list(self._models.values())
        for model in models:
            if model.live.has_room(tenant, deadline):
                return
        if models and all(model.alive for model in models):  # otherwise the answer is another one
            models[0].live.require_room(tenant, deadline)

    async def ask(
        self,
        request: Request,
        models: Sequence[Model],
        texts: Sequence[Input],
        calibrated: bool | None = None,
        cut: bool = True,
    ) -> list[Scored]:
        """Puts the texts or pairs to every model at once.

        Args:
            calibrated: see `CallOptions`; None: as the setting says.
            cut: see `CallOptions`.

        Raises:
            InvalidRequest: one is a text and a model reads pairs, or the other way round.
            Forbidden: the key may not ask one of the models.
            PayloadTooLarge: too many texts, or one is too long, or all of them are; or more than is masked at a time.
            DeadlineExceeded, ClientGone: what still waited in a queue was given up.
            Overloaded: the service holds too much text already.
            Overloaded, NotReady, InferenceFailed, NotANumber: of one model; what the others had queued is given up.
        """
        settings = self._settings
        require_few(texts, settings)
        if any(model.name in settings.mask_before_predict for model in models):
            require_maskable(texts)
        for model in models:
            request.caller.require_model(model.name)
            self._require_reads(model, texts)
        calibrated = settings.calibrated if calibrated is None else calibrated
        options = CallOptions(request.caller.tenant, request.deadline, calibrated, cut)
        with self._intake.take(texts, request.caller.tenant, models) as taken:
            async with WhileThere(request.gone):
                answers = await together([model.ask(taken, options) for model in models], options.cancellation)
                request.tokens += sum(answer.tokens for answer in answers)
                versions = [(model.name, answer.version) for model, answer in zip(models, answers, strict=True)]
                request.asked = [*request.asked, *versions]
                return answers

    def _require_reads(self, model: Model, texts: Sequence[Input]) -> None:
        wanted = str if model.inputs == "texts" else tuple
        place = next((place for place, given in enumerate(texts) if not isinstance(given, wanted)), None)
        if place is not None:
            reads, has = ("single texts", "a pair") if wanted is str else ("pairs of texts", "a single text")
            raise InvalidRequest(
                f"inputs.{place}: is {has}, and {model.name!r} reads {reads}; send {self._written[model.inputs]}"
            )
