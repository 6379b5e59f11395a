import asyncio

import numpy as np
import numpy.typing as npt
import pytest

from service.batching import Batcher, BatchLimits
from service.errors import InferenceFailed
from service.redaction import describe_exception
from service.telemetry import Telemetry


def test_an_exception_is_described_without_its_message() -> None:
    try:
        try:
            raise KeyError("my card number")
        except KeyError as error:
            raise ValueError("cannot read: my card number") from error
    except ValueError as error:
        described = describe_exception(error)
    assert "my card number" not in described
    assert "ValueError" in described
    assert "KeyError" in described
    assert "test_redaction.py" in described


def test_an_exception_that_was_never_raised_is_described_too() -> None:
    assert describe_exception(ValueError("secret")) == "ValueError"


def test_engine_failures_are_logged_without_the_text(caplog: pytest.LogCaptureFixture) -> None:
    def fail(batch: object) -> npt.NDArray[np.float32]:
        raise RuntimeError(f"bad input: {batch} zanzibarium")

    async def main() -> None:
        limits = BatchLimits(
            streams=1, batch_texts=1, batch_tokens=8, batch_ms=9, window=8, queue_texts=8, queue_tokens=8
        )
        batcher: Batcher[str] = Batcher("m", fail, limits, Telemetry())
        batcher.start()
        with pytest.raises(InferenceFailed) as failure:
            await batcher.submit(["x"])
        assert "zanzibarium" not in str(failure.value)
        await batcher.close()

    asyncio.run(main())
    assert "RuntimeError" in caplog.text
    assert "zanzibarium" not in caplog.text
