"""Texts in, the same texts out without what is personal or secret in them."""

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from functools import partial
from typing import Any

from service.access.secret_file import read_pseudonym_key
from service.api.ask import require_few
from service.api.schemas import MaskRequest, MaskResponse
from service.errors import Conflict, Overloaded
from service.http.body import parse, read_body
from service.http.messages import Request, Response
from service.http.operation import Operation
from service.http.routing import Endpoint, Group
from service.masking import TYPES, Masker, Mode, require_maskable
from service.settings import Settings

_MOST_WAITING = 1_000_000  # characters of all requests


class Masking:
    """The handler. One thread for all, so that however much is masked, one core at most is taken from models.

    Raises:
        ConfigurationError: the file with the key of pseudonyms cannot be read, or is too short.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._key = b"" if settings.pseudonym_key_file is None else read_pseudonym_key(settings.pseudonym_key_file)
        self._thread = ThreadPoolExecutor(1, "mask")
        self._waiting = 0  # characters

    async def mask(self, request: Request) -> Response:
        """POST /v1/mask."""
        settings = self._settings
        body = parse(MaskRequest, await read_body(request, settings), settings.max_inputs)
        texts = [body.inputs] if isinstance(body.inputs, str) else body.inputs
        require_few(texts, settings)
        masker = self._masker(body)
        size = require_maskable(texts)
        if self._waiting + size > _MOST_WAITING:
            raise Overloaded("too many texts wait to be masked; try again later", 1)
        self._waiting += size
        try:
            work = partial(_results, masker, texts)
            results = await asyncio.get_running_loop().run_in_executor(self._thread, work)
        finally:
            self._waiting -= size
        return Response.json({"results": results})

    def _masker(self, body: MaskRequest) -> Masker:
        mode = Mode(body.mode)
        if mode is Mode.PSEUDONYM and not self._key:
            raise Conflict(
                "mode: 'pseudonym' needs a key, and this service has none: set LATHE_PSEUDONYM_KEY_FILE, or send "
                "another mode"
            )
        return Masker(mode, TYPES if body.types is None else body.types, self._key)


def _results(masker: Masker, texts: Sequence[str]) -> list[dict[str, Any]]:
    masked = [masker.mask(text) for text in texts]
    return [{"text": one.text, "entities": [asdict(entity) for entity in one.entities]} for one in masked]


def routes(settings: Settings) -> Group:
    """What needs no model."""
    operation = Operation(
        "mask", "Mask what is personal or secret in texts.", MaskResponse, description="Results.", request=MaskRequest,
        errors=(Conflict, Overloaded),
    )  # fmt: skip
    description = (
        "Found by form and checksum: e-mail, telephone, cards, IBAN, IP, URLs, documents, Chinese numbers, keys and "
        "passwords. Names and postal addresses have no form, and stay."
    )
    return Group(
        "Masking", description, [Endpoint("POST", "/v1/mask", Masking(settings).mask, operation, scope="predict")]
    )
