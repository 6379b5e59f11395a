"""Runs a bundle's files: tokenizer and ONNX Runtime session, as its manifest asks. Knows no queue and no HTTP."""

import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Self, TypeAlias

import numpy as np
import numpy.typing as npt

from compression.bundle.cgroups import read
from compression.bundle.cpu import int8_instructions
from compression.bundle.extras import extra
from compression.bundle.inputs import Input
from compression.bundle.manifest import RuntimeOptions
from compression.bundle.storage import Bundle
from compression.bundle.task import Logits
from compression.bundle.tokenizer import WindowTokenizer
from compression.bundle.windows import Encoded, joined, windows_of
from compression.errors import BundleError

if TYPE_CHECKING:  # a bundle can be read, and its manifest shown, where nothing runs it
    import onnxruntime

Provider: TypeAlias = str | tuple[str, dict[str, str]]  # an execution provider of ONNX Runtime, with its options


class Runtime:
    """A tokenizer and one session. `encode` and `logits` release the GIL and may run on several threads at once.

    Args:
        model: content of the ONNX file.
        tokenizer: content of tokenizer.json.
        max_length: the window in tokens, special tokens included.
        providers: execution providers, in order of preference; see `placement` for what became of it.
        threads: threads that one forward pass may use.
        weights: directory of the files besides, where the model keeps weights in others; it has none left out.

    Attributes:
        inputs: what the model takes, by name.
        tokenizer: makes what `logits` takes.
        long_texts: what is read of texts that are longer than the window; None: they are cut.

    Raises:
        BundleError: model or tokenizer cannot be loaded, or the model wants inputs that no text gives.
        MissingExtra: there is no ONNX Runtime.
    """

    def __init__(
        self,
        model: bytes,
        tokenizer: bytes,
        max_length: int,
        options: RuntimeOptions,
        providers: Sequence[Provider] = ("CPUExecutionProvider",),
        threads: int = 1,
        weights: Path | None = None,
    ) -> None:
        self.max_length = max_length
        self._pad_token_id = options.pad_token_id
        self.long_texts = options.long_texts
        self.tokenizer = WindowTokenizer(tokenizer, max_length, options.long_texts)
        if not self.tokenizer.knows(options.pad_token_id):
            raise BundleError(f"pad_token_id is {options.pad_token_id}, and the tokenizer has no such token")
        self._session, self._run_options = _create_session(model, options, providers, threads, weights)
        self.inputs = [value.name for value in self._session.get_inputs()]
        unknown = set(self.inputs) - {"input_ids", "attention_mask", "token_type_ids"}
        if unknown:
            raise BundleError(f"the model wants the inputs {sorted(unknown)}, which no text gives")

    @classmethod
    def of(cls, bundle: Bundle, providers: Sequence[Provider] = ("CPUExecutionProvider",), threads: int = 1) -> Self:
        """The runtime of a verified bundle."""
        manifest = bundle.manifest
        try:
            tokenizer = bundle.read(bundle.tokenizer_path.name)
            with bundle.weights() as weights:
                return cls(
                    bundle.model(), tokenizer, manifest.max_length, manifest.runtime, providers, threads, weights
                )
        except BundleError as error:
            path = str(bundle.path)
            raise (error if path in str(error) else BundleError(f"{path}: {error}")) from error.__cause__

    def placement(self) -> dict[str, set[str]]:
        """Operators by the execution provider that computes them; a provider that could not be started is absent."""
        operators: dict[str, set[str]] = {provider: set() for provider in self._session.get_providers()}
        for part in self._session.get_provider_graph_assignment_info():
            operators[part.ep_name].update(node.op_type for node in part.get_nodes())
        return operators

    def encode(self, given: Input) -> Encoded:
        """Tokenises one text or pair, special tokens included; see `WindowTokenizer.encode`."""
        return self.tokenizer.encode(given)

    def logits(self, batch: Sequence[Encoded]) -> Logits:
        """One forward pass of all windows, padded on the right to the longest.

        Returns:
            (texts, labels)
        """
        feed = self.feed(windows_of(batch))
        return joined(self._session.run(["logits"], feed, self._run_options)[0], batch, self.long_texts)

    @contextmanager
    def limited(self, seconds: float) -> Iterator[None]:
        """Ends what is being computed when the block has taken so long; after that nothing can be computed any more.

        Raises:
            BundleError: it has taken so long.
        """
        timer = threading.Timer(seconds, setattr, (self._run_options, "terminate", True))
        timer.daemon = True
        timer.start()
        try:
            yield
        except Exception as error:  # onnxruntime's exceptions share no base class
            if not self._run_options.terminate:
                raise
            raise BundleError(f"the model did not answer a few texts within {seconds:g} s") from error
        finally:
            timer.cancel()

    def feed(self, batch: Sequence[Encoded]) -> dict[str, npt.NDArray[np.int64]]:
        """The model's inputs, each (windows, longest)."""
        shape = (len(batch), max(len(encoded) for encoded in batch))
        arrays = {
            "input_ids": np.full(shape, self._pad_token_id, np.int64),
            "attention_mask": np.zeros(shape, np.int64),
            "token_type_ids": np.zeros(shape, np.int64),
        }
        for row, encoded in enumerate(batch):
            arrays["input_ids"][row, : len(encoded)] = encoded.ids
            arrays["attention_mask"][row, : len(encoded)] = 1
            arrays["token_type_ids"][row, : len(encoded)] = encoded.type_ids
        return {name: arrays[name] for name in self.inputs}


def session_options(threads: int) -> "onnxruntime.SessionOptions":
    """What every session of ours asks for, so that a graph gives the same answers wherever it is computed.

    Without VNNI, the fast product of uint8 and int8 adds pairs in 16 bits, which saturate (ONNX Runtime's page on
    quantization). The precision mode turns int8 weights into uint8, whose product is exact. With VNNI both are, and
    where there is AMX as well the mode would cost it: batches would take three times as long.

    Args:
        threads: that one forward pass may use.
    """
    with extra("serve", "running a bundle"):
        import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    if not int8_instructions(read("/proc/cpuinfo")):
        options.add_session_config_entry("session.x64quantprecision", "1")
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # leave the cores to others
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")  # for `placement`
    return options


def _create_session(
    model: bytes, options: RuntimeOptions, providers: Sequence[Provider], threads: int, weights: Path | None
) -> "tuple[onnxruntime.InferenceSession, onnxruntime.RunOptions]":
    settings = session_options(threads)
    import onnxruntime

    # Without a place for them, files that the model names would be looked for where the process happens to be.
    place = str(weights or os.devnull)
    settings.add_session_config_entry("session.model_external_initializers_file_folder_path", place)
    try:
        session = onnxruntime.InferenceSession(
            model,
            settings,
            providers=list(providers),
            disabled_optimizers=list(options.disabled_optimizers),
            enable_fallback=0,  # to other providers, with a word on standard output and no more
        )
    except Exception as error:  # onnxruntime's exceptions share no base class
        raise BundleError(f"ONNX Runtime cannot load the model: {error}") from error
    session._model_bytes = None  # kept for a fallback that there is none of: as much again as the session
    return session, onnxruntime.RunOptions()
