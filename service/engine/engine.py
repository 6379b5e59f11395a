"""Tokenizer and runtime sessions of one bundle, on the device that was asked for. Knows no HTTP and no queue."""

import itertools
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import cached_property

import numpy as np
import numpy.typing as npt

from compression.bundle import GOLDEN_WITHIN, Bundle, BundleError, Encoded, Input, LongTexts, Runtime, read_golden
from service.engine.devices import batch_texts, load
from service.errors import ConfigurationError
from service.setting_types import Device

Mask = Callable[[str], str]

_WARM_UP = "The quick brown fox jumps over the lazy dog. "
_REHEARSED = (1, 4, 16)  # sentences of a text: different lengths tell what a batch costs besides its tokens


class Engine:
    """The sessions of one bundle, one for each GPU. `encode` and `infer` release the GIL, and may run on several
    threads at once; a thread keeps to one GPU, so that each GPU takes the next batch when it is free.

    Args:
        mask: what the model reads in place of a text; None: the text.

    Raises:
        BundleError, ConfigurationError: see `load`.
    """

    def __init__(self, bundle: Bundle, device: Device = Device(), mask: Mask | None = None) -> None:
        self.bundle = bundle
        self.mask = mask
        self._device = device
        self._runtimes = load(bundle, device)
        self._turns = itertools.cycle(self._runtimes)
        self._of_thread = threading.local()

    @cached_property
    def tokenizer_key(self) -> tuple[str, int, LongTexts | None, bool]:
        """The same for engines that tokenise every text alike: the tokenizer's digest, the window, what is read of
        longer texts, and whether they are masked."""
        manifest = self.bundle.manifest
        digest = manifest.files[self.bundle.tokenizer_path.name]
        return digest, manifest.max_length, manifest.runtime.long_texts, self.mask is not None

    @property
    def most_tokens(self) -> int:
        """That a text may have and not be cut."""
        return self._runtimes[0].tokenizer.most_tokens

    def batch_texts(self, batch_tokens: int) -> int:
        """Texts that a batch of so many tokens may have: one where an answer would depend on its neighbours."""
        return batch_texts(self._device, batch_tokens) if self.bundle.manifest.runtime.batch_exact else 1

    def encode(self, given: Input) -> Encoded:
        """Tokenises one text or pair, as the model reads it."""
        if self.mask is not None:
            given = self.mask(given) if isinstance(given, str) else (self.mask(given[0]), self.mask(given[1]))
        return self._runtimes[0].encode(given)

    def infer(self, batch: Sequence[Encoded]) -> npt.NDArray[np.float32]:
        """Logits, (texts, labels)."""
        runtime: Runtime | None = getattr(self._of_thread, "runtime", None)
        if runtime is None:
            runtime = self._of_thread.runtime = next(self._turns)
        return runtime.logits(batch)

    @contextmanager
    def limited(self, seconds: float) -> Iterator[None]:
        """Ends what is being computed when the block has taken so long; see `Runtime.limited`.

        Raises:
            BundleError: it has taken so long; names the bundle.
        """
        try:
            with ExitStack() as limits:
                for runtime in self._runtimes:
                    limits.enter_context(runtime.limited(seconds))
                yield
        except BundleError as error:
            path = str(self.bundle.path)
            raise (error if path in str(error) else BundleError(f"{path}: {error}")) from None

    def verify(self) -> None:
        """Compares this machine's answers with the bundle's golden ones, where it has any.

        Raises:
            BundleError: they are not the same.
        """
        golden = read_golden(self.bundle)
        if golden is None:
            return
        for runtime in self._runtimes:
            answers = [runtime.logits([runtime.encode(text)]) for text in golden.texts]
            difference = golden.difference(self.bundle.task, np.concatenate(answers))
            if difference is not None:
                allowed = GOLDEN_WITHIN * self.bundle.task.scale
                raise BundleError(
                    f"{self.bundle.path}: this machine does not give the bundle's golden answers: {difference}, and "
                    f"{allowed:.2g} is allowed; make the bundle on a machine like this one, without int8 if need be"
                )

    def rehearsal(self) -> list[list[Encoded]]:
        """Batches by which to learn what batches cost."""
        return [self._practice(sentences).windows for sentences in _REHEARSED * 4]

    def _practice(self, sentences: int) -> Encoded:
        """A text of so many sentences, or a pair of them."""
        text = _WARM_UP * sentences
        return self.encode((text, text) if self.bundle.manifest.inputs == "pairs" else text)

    def warm_up(self) -> None:
        """Answers one text alone and in a batch, so that the first client does not wait for allocations.

        Raises:
            ConfigurationError: the model gives no finite answer.
        """
        short, long = self._practice(1), self._practice(2)
        for runtime, batch in itertools.product(self._runtimes, ([short], [short] * 7 + [long])):  # which is padded
            logits, count = runtime.logits(batch), len(batch)
            if logits.shape != (count, len(self.bundle.manifest.labels)) or not np.isfinite(logits).all():
                raise ConfigurationError(f"{self.bundle.path}: the model gives no sensible answer to a warm-up text")
