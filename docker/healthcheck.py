"""Exit with 0 if the server of this container is serving (grpc.health.v1)."""

from __future__ import annotations

import sys

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

ADDRESS = sys.argv[1] if len(sys.argv) > 1 else "localhost:50051"

with grpc.insecure_channel(ADDRESS) as channel:
    try:
        answer = health_pb2_grpc.HealthStub(channel).Check(
            health_pb2.HealthCheckRequest(service="asr.v1.Speech"), timeout=4
        )
    except grpc.RpcError as error:
        sys.exit(f"{ADDRESS}: {error.code().name}")
sys.exit(0 if answer.status == health_pb2.HealthCheckResponse.SERVING else "not serving")
