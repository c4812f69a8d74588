"""Recognition by a server, as our own types."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from asr_service.client import Client, result_of
from asr_service.types import RecognitionResult


def finals_of_stream(client: Client, chunks: Iterable[bytes], **options: Any) -> Iterator[RecognitionResult]:
    """Send bytes as one stream; yield its finals, with words. Raises ServiceError, and what `chunks` raises."""
    responses = client.stream(chunks, enable_word_time_offsets=True, enable_word_confidence=True, **options)
    return (result_of(result) for response in responses for result in response.results if result.is_final)
