"""A TCP relay out of the lab: it accepts on a listener of the host's network and connects inside the lab's.

A socket keeps the network namespace it was made in, so the developer's browser reaches https://127.0.0.1:PORT and the
host needs no interface, no route and no address for it. Must not know: what passes through (it is TLS).
"""

from __future__ import annotations

import asyncio
import contextlib
import socket


async def _pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while data := await source.read(65_536):
            sink.write(data)
            await sink.drain()
        sink.write_eof()


async def _serve(listener: socket.socket, host: str, port: int) -> None:
    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            far_reader, far_writer = await asyncio.open_connection(host, port)
        except OSError:
            writer.close()
            return
        await asyncio.gather(_pump(reader, far_writer), _pump(far_reader, writer))
        for end in (writer, far_writer):
            end.close()

    server = await asyncio.start_server(accept, sock=listener)
    await server.serve_forever()


def main(listener: socket.socket, host: str, port: int) -> None:
    """Relay for ever: the process is ended from outside."""
    asyncio.run(_serve(listener, host, port))
