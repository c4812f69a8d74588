"""How a call failed, as the server or the transport says."""

from __future__ import annotations

import contextlib
from typing import Any

import grpc
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2  # type: ignore[import-untyped]
from grpc_status import rpc_status

from asr_service.errors import AsrError


class ServiceError(AsrError):
    """A call failed.

    Attributes:
        status: name of the gRPC status.
        reason: the stable reason of the API reference, "" where the transport failed.
        message: for people.
        field: the request's field at fault, "" where none is.
        request_id: of the call, as the server's log has it; "" where unknown.
        retry_after_s: seconds to wait before another try, None where the server does not say that one can help.
    """

    status: str  # type: ignore[misc]  # of the instance, for it is the server that says
    reason: str  # type: ignore[misc]

    def __init__(self, error: grpc.RpcError) -> None:
        call: Any = error  # both kinds of client raise errors that are also calls, which the types do not say
        details = call.details() or call.code().name
        if "larger than max" in details:  # by gRPC itself, which knows no better advice
            details += "; longer recordings go through `stream`, in smaller chunks"
        super().__init__(details)
        self.status, self.reason = call.code().name, ""
        self.request_id = ""
        self.retry_after_s: float | None = None
        # Behind a proxy the details may be of another status than the call's, or no message at all.
        with contextlib.suppress(ValueError, DecodeError):
            rich: Any = rpc_status.from_call(call)
            for packed in rich.details if rich is not None else ():
                info, request = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
                retry = error_details_pb2.RetryInfo()
                if packed.Unpack(info):
                    self.reason, self.request_id = info.reason, info.metadata.get("request_id", "")
                elif packed.Unpack(request) and request.field_violations:
                    self.field = request.field_violations[0].field
                elif packed.Unpack(retry):
                    self.retry_after_s = retry.retry_delay.ToMilliseconds() / 1000
