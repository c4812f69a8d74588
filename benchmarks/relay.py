"""A TCP relay that can reset the server's connection, as when the client's machine dies: gRPC itself never would."""

from __future__ import annotations

import asyncio
import socket
import struct

LINGER_NOT = struct.pack("ii", 1, 0)  # closing the socket then sends a RST


class Relay:
    """Stands between a client and the server on `port`; clients connect to `address`."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._reset = asyncio.Event()

    async def __aenter__(self) -> Relay:
        self._server = await asyncio.start_server(self._connected, "localhost", 0)
        self.address = f"localhost:{self._server.sockets[0].getsockname()[1]}"
        return self

    def reset(self) -> None:
        self._reset.set()

    async def __aexit__(self, *_: object) -> None:
        self.reset()
        self._server.close()
        await asyncio.sleep(0)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        from_server, to_server = await asyncio.open_connection("localhost", self._port)
        pumps = [asyncio.create_task(pump(reader, to_server)), asyncio.create_task(pump(from_server, writer))]
        await self._reset.wait()
        to_server.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_NOT)
        for transport in (to_server.transport, writer.transport):
            transport.abort()
        for task in pumps:
            task.cancel()
        await asyncio.gather(*pumps, return_exceptions=True)


async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65_536):
        writer.write(data)
        await writer.drain()
