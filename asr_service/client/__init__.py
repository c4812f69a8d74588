"""A small client of `asr.v1.Speech`, blocking and asynchronous.

    with Client("localhost:50051") as client:
        print(client.recognize("talk.flac").transcript)
        for response in client.stream(chunks, encoding="linear16", sample_rate_hertz=16000, interim_results=True):
            ...

Options are the fields of RecognitionConfig and StreamingRecognitionConfig in protos/asr/v1/speech.proto; enum values by
name in any case, durations in seconds. Responses are the messages of that file; `result_of` and `event_of` make our own
types of their parts. What is repeated is a list, a message in it a dict or the message itself:

    client.recognize("talk.flac", phrase_hints=[{"phrases": ["Ebionites", "Nazarenes"], "boost": 8.0}])

Among the chunks of a stream there may be `FLUSH`, which ends the utterance here, and `KEEP_ALIVE`, for a pause without
audio:

    def chunks():
        while button.is_pressed():
            yield microphone.read()
        yield bytes(9600)  # 0.3 s of silence: a flush may leave so much of the newest audio to what follows
        yield FLUSH

The server has neither TLS nor authentication. At a proxy that has them, with its token:

    with Client("asr.example.org:443", credentials=grpc.ssl_channel_credentials()) as client:
        client.recognize("talk.flac", metadata=[("authorization", f"Bearer {token}")])
"""

from asr_service.client.calls import AsyncClient, Client, Metadata, Recognition
from asr_service.client.channel import Credentials, tls_credentials
from asr_service.client.error import ServiceError
from asr_service.client.requests import FLUSH, KEEP_ALIVE, Content, Control
from asr_service.client.responses import event_of, result_of

__all__ = [
    "FLUSH",
    "KEEP_ALIVE",
    "AsyncClient",
    "Client",
    "Content",
    "Control",
    "Credentials",
    "Metadata",
    "Recognition",
    "ServiceError",
    "event_of",
    "result_of",
    "tls_credentials",
]
