"""Takes in the texts of a request: holds them against the bound on bytes, and says where they are tokenised."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from compression.bundle import Input, texts_of
from service.batching.held import HeldText
from service.engine.devices import streams
from service.errors import Overloaded
from service.models.model import Model
from service.models.tokenised import Texts, TokenizerThreads
from service.settings import Settings
from service.telemetry import Telemetry
from service.tenant import Tenant


class Intake:
    """One for all models of a service.

    Attributes:
        tokenizer_threads: how many there are.
    """

    def __init__(self, settings: Settings, telemetry: Telemetry) -> None:
        held = self.held = HeldText(settings.queue_bytes)
        self.tokenizer_threads = settings.streams or streams(settings.device)
        self._threads = TokenizerThreads(self.tokenizer_threads)
        telemetry.held_text(lambda: held.bytes)

    @contextmanager
    def take(self, texts: Sequence[Input], tenant: Tenant, models: Sequence[Model]) -> Iterator[Texts]:
        """The texts, which are held while this lasts.

        Args:
            tenant: who sent them.
            models: what they are for.

        Raises:
            Overloaded, PayloadTooLarge: see `HeldText.hold`.
        """
        try:
            size = self.held.take([text for given in texts for text in texts_of(given)], tenant)
        except Overloaded:
            for model in models:
                model.live.shed("overloaded", len(texts))
            raise
        try:
            yield Texts(texts, threads=self._threads)
        finally:
            self.held.give_back(size, tenant)

    def shut_down(self) -> None:
        """Tokenises nothing more."""
        self._threads.shut_down()
