"""Around every call of our service: a request id, one log line, and errors as statuses with details."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import re
import time
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from asr_service.errors import AsrError, InternalError, MalformedMessage, ShuttingDown
from asr_service.server.status import to_status

log = logging.getLogger("asr.call")

REQUEST_ID_KEY = "x-request-id"
DEADLINE_SLACK_S = 0.05
DEADLINE_ROUNDING = 0.01
# A status waits behind the messages that the client has not read. gRPC goes on sending it; no task waits longer for it.
STATUS_S = 1.0
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")


@dataclass
class Call:
    """What is known of the call being served; the servicer adds what it learns."""

    request_id: str
    fields: dict[str, Any] = field(default_factory=dict)


current_call: contextvars.ContextVar[Call] = contextvars.ContextVar("current_call")

Context = grpc.aio.ServicerContext[Any, Any]


class CallInterceptor(grpc.aio.ServerInterceptor):  # type: ignore[type-arg]  # generic in the stubs only
    """Wraps the handlers of one service, and logs calls of methods that nobody serves.

    Attributes:
        stopping: set it when the server stops; calls that are cut off then are logged as that.
    """

    def __init__(self, service: str, *, retry_after_s: float) -> None:
        self._prefix = f"/{service}/"
        self._retry_after_s = retry_after_s
        self.stopping = False

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any]]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        handler: Any = await continuation(handler_call_details)
        method = handler_call_details.method
        if handler is None:  # the transport answers UNIMPLEMENTED
            log.warning("call", extra={"fields": {"method": method, "code": "UNIMPLEMENTED"}})
            return None
        if not method.startswith(self._prefix):
            return handler
        deserializer, serializer = handler.request_deserializer, handler.response_serializer
        if handler.stream_stream:
            return grpc.stream_stream_rpc_method_handler(
                self._wrap(method, handler.stream_stream),
                request_deserializer=deserializer,
                response_serializer=serializer,
            )

        async def unary(request: bytes, context: Context) -> Any:
            return await handler.unary_unary(_parse(deserializer, request), context)

        # Parsed inside, for grpc.aio answers UNKNOWN where a unary request cannot be parsed, and logs a traceback.
        return grpc.unary_unary_rpc_method_handler(self._wrap(method, unary), response_serializer=serializer)

    def _wrap(self, method: str, handler: Callable[[Any, Context], Awaitable[Any]]) -> Any:
        async def wrapped(request: Any, context: Context) -> Any:
            call = Call(_request_id(context))
            current_call.set(call)
            started = time.monotonic()
            code, reason = "OK", ""
            answer, failure = None, None
            try:
                await context.send_initial_metadata(((REQUEST_ID_KEY, call.request_id),))
                try:
                    answer = await handler(request, context)
                except AsrError as error:
                    failure, code, reason = error, error.status, error.reason
                # To a handler a cancellation may look like the end of the audio, or of a stream that never began: gRPC
                # tells of both, at times of the end first.
                await asyncio.sleep(0)
                if context.cancelled():
                    raise asyncio.CancelledError
            except (asyncio.CancelledError, grpc.aio.AbortError):
                code, reason = self._cancelled(context, time.monotonic() - started)
                raise
            except grpc.aio.InternalError:  # what is awaited of gRPC may fail before the client's cancel comes here
                code, reason = self._cancelled(context, time.monotonic() - started)
                raise asyncio.CancelledError from None
            except Exception:
                failure, code, reason = internal_error(call), InternalError.status, InternalError.reason
                log.exception("unexpected", extra={"fields": {"request_id": call.request_id}})
            finally:
                self._log(method, context, call, code, reason, time.monotonic() - started)
            if failure is not None:
                await self._abort(context, failure, call)
            return answer

        return wrapped

    def _cancelled(self, context: Context, duration_s: float) -> tuple[str, str]:
        """Code and reason to log for a call that has been cancelled: gRPC does so for three causes, and tells none."""
        remaining_s: Any = context.time_remaining()  # None without a deadline, whatever the types say
        # The client's clock runs out first, and it cancels; what gRPC sends of its deadline is rounded up.
        if remaining_s is not None and remaining_s < DEADLINE_SLACK_S + DEADLINE_ROUNDING * duration_s:
            return "DEADLINE_EXCEEDED", ""
        return "CANCELLED", ShuttingDown.reason if self.stopping else ""

    async def _abort(self, context: Context, error: AsrError, call: Call) -> None:
        status = to_status(error, request_id=call.request_id, retry_after_s=self._retry_after_s)
        try:
            async with asyncio.timeout(STATUS_S):
                await context.abort(status.code, status.details, status.trailing_metadata)
        except (TimeoutError, grpc.aio.InternalError):  # the latter: the client has gone
            raise asyncio.CancelledError from None

    def _log(self, method: str, context: Context, call: Call, code: str, reason: str, duration_s: float) -> None:
        fields: dict[str, Any] = {
            "request_id": call.request_id,
            "method": method,
            "code": code,
            "reason": reason,
            "duration_s": round(duration_s, 3),
            "peer": context.peer(),
            "user_agent": _metadata(context, "user-agent"),
        }
        log.info("call", extra={"fields": fields | call.fields})


def internal_error(call: Call) -> InternalError:
    """What a call ends with after a mistake of ours."""
    return InternalError(f"internal error; the server's log has it under request {call.request_id}")


def _parse(deserializer: Callable[[bytes], Any], request: bytes) -> Any:
    try:
        return deserializer(request)
    except DecodeError as error:
        raise MalformedMessage("the request is not the message it should be") from error


def _request_id(context: Context) -> str:
    wanted = _metadata(context, REQUEST_ID_KEY)
    return wanted if _REQUEST_ID.fullmatch(wanted) else uuid.uuid4().hex


def _metadata(context: Context, key: str) -> str:
    for name, value in context.invocation_metadata() or ():
        if name == key:
            return value if isinstance(value, str) else repr(value)
    return ""
