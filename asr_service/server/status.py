"""Errors to gRPC statuses with details (google.rpc.ErrorInfo, BadRequest, RetryInfo)."""

from __future__ import annotations

import grpc
from google.protobuf.any_pb2 import Any
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2, status_pb2  # type: ignore[import-untyped]
from grpc_status import rpc_status

from asr_service.errors import AsrError, NoCapacity, Unavailable

DOMAIN = "asr.v1"


def to_status(error: AsrError, *, request_id: str, retry_after_s: float) -> grpc.Status:
    """The status an error ends a call with. RetryInfo only where trying again can help."""
    info = error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN, metadata={"request_id": request_id})
    details = [_packed(info)]
    if error.field:
        violation = error_details_pb2.BadRequest.FieldViolation(field=error.field, description=error.message)
        details.append(_packed(error_details_pb2.BadRequest(field_violations=[violation])))
    if isinstance(error, NoCapacity | Unavailable):
        delay = Duration()
        delay.FromMilliseconds(round(retry_after_s * 1000))
        details.append(_packed(error_details_pb2.RetryInfo(retry_delay=delay)))
    code = grpc.StatusCode[error.status]
    return rpc_status.to_status(status_pb2.Status(code=code.value[0], message=error.message, details=details))


def _packed(message: error_details_pb2.ErrorInfo | error_details_pb2.BadRequest | error_details_pb2.RetryInfo) -> Any:
    packed = Any()
    packed.Pack(message)
    return packed
