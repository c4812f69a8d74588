"""Options, audio and controls as the messages of the API."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, TypeVar

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message

from asr_service.generated.asr.v1 import speech_pb2 as pb

M = TypeVar("M", bound=Message)
Content = bytes | bytearray | memoryview
Control = pb.StreamControl

FLUSH = Control(flush=Control.Flush())
KEEP_ALIVE = Control(keep_alive=Control.KeepAlive())


def unary_request(audio: str | Path | Content, options: dict[str, Any]) -> pb.RecognizeRequest:
    content = Path(audio).read_bytes() if isinstance(audio, str | Path) else bytes(audio)
    return pb.RecognizeRequest(config=_filled(pb.RecognitionConfig(), options), audio=content)


def first_message(options: dict[str, Any]) -> pb.StreamingRecognizeRequest:
    streaming = pb.StreamingRecognitionConfig(config=pb.RecognitionConfig())  # there, even if nothing is in it
    own = set(streaming.DESCRIPTOR.fields_by_name) - {"config"}
    _filled(streaming, {name: value for name, value in options.items() if name in own})
    _filled(streaming.config, {name: value for name, value in options.items() if name not in own}, others=own)
    return pb.StreamingRecognizeRequest(streaming_config=streaming)


def chunk_message(chunk: object) -> pb.StreamingRecognizeRequest:
    """A chunk or control of a stream. Raises TypeError for anything else."""
    if isinstance(chunk, Control):
        return pb.StreamingRecognizeRequest(control=chunk)
    if not isinstance(chunk, Content):
        wanted = "bytes, bytearray, memoryview, FLUSH or KEEP_ALIVE"
        raise TypeError(f"chunks has {type(chunk).__name__}, must have {wanted}")
    return pb.StreamingRecognizeRequest(audio=bytes(chunk))


def _filled(message: M, options: dict[str, Any], *, others: Collection[str] = (), place: str = "") -> M:
    """Set fields by name; `others` are options too, of another message; `place` is this one's among the options.

    Raises, naming the place, TypeError for a name that is no field and a value of another type, ValueError for no enum
    value and a value out of range.
    """
    for name, value in options.items():
        path = f"{place}.{name}" if place else name
        field = message.DESCRIPTOR.fields_by_name.get(name)
        if field is None:
            known = ", ".join(sorted({*message.DESCRIPTOR.fields_by_name, *others}))
            said = f"{place}: {name} is no field" if place else f"{name} is no option"
            raise TypeError(f"{said}; there are {known}")
        present = getattr(message, name)
        if isinstance(present, Duration):
            with _naming(path, value, "a number of seconds"):
                present.FromMilliseconds(round(value * 1000))
        elif isinstance(present, Message):
            if not isinstance(value, dict):
                raise _wrong_type(path, value, _wanted(field))
            _filled(present, value, place=path)
        elif hasattr(present, "append"):
            if not isinstance(value, list | tuple):
                raise _wrong_type(path, value, "a list")
            for k, item in enumerate(value):
                if isinstance(item, dict) and field.message_type is not None:
                    _filled(present.add(), item, place=f"{path}[{k}]")
                else:
                    with _naming(f"{path}[{k}]", item, _wanted(field)):
                        present.append(item)
        else:
            is_name = field.enum_type is not None and isinstance(value, str)
            number = _enum_number(path, field.enum_type, value) if is_name else value
            with _naming(path, value, _wanted(field)):
                setattr(message, name, number)
    return message


@contextlib.contextmanager
def _naming(path: str, value: object, wanted: str) -> Iterator[None]:
    """Protobuf's errors as ours: its own do not say which value they are about."""
    try:
        yield
    except TypeError as error:
        raise _wrong_type(path, value, wanted) from error
    except (ValueError, OverflowError) as error:  # out of range, or a text that is no Unicode
        raise ValueError(f"{path} is {value!r}: {error}") from error


def _wrong_type(path: str, value: object, wanted: str) -> TypeError:
    return TypeError(f"{path} is {value!r}, must be {wanted}")


def _wanted(field: Any) -> str:
    """What a field takes (one of a list: each item), in words."""
    if field.message_type is not None:
        return f"a dict of {', '.join(field.message_type.fields_by_name)}"
    if field.enum_type is not None:
        return f"one of {_enum_names(field.enum_type)}"
    words = {field.CPPTYPE_STRING: "a text", field.CPPTYPE_BOOL: "True or False", field.CPPTYPE_FLOAT: "a number"}
    return words.get(field.cpp_type, "a whole number")


def _enum_number(path: str, kind: Any, value: str) -> int:
    if value.upper() not in kind.values_by_name:
        raise ValueError(f"{path} is {value!r}; there are {_enum_names(kind)}")
    return int(kind.values_by_name[value.upper()].number)


def _enum_names(kind: Any) -> str:
    """As they are given; the one for "not said" is none of them."""
    return ", ".join(name.lower() for name in kind.values_by_name if not name.endswith("_UNSPECIFIED"))
