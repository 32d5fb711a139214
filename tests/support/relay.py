"""A slow link: passes TCP on, each direction with a delay of its own.

``python -m tests.support.relay PORT HOST:PORT THERE_S BACK_S`` listens on 127.0.0.1.
"""

from __future__ import annotations

import asyncio
import sys


async def _pass(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, delay_s: float) -> None:
    loop = asyncio.get_running_loop()
    while data := await reader.read(65536):
        loop.call_later(delay_s, writer.write, data)
    loop.call_later(delay_s, writer.close)


async def serve(port: int, host: str, to: int, there_s: float, back_s: float) -> None:
    """Relays until cancelled."""

    async def joined(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection(host, to)
        await asyncio.gather(_pass(reader, far_writer, there_s), _pass(far_reader, writer, back_s))

    async with await asyncio.start_server(joined, "127.0.0.1", port) as server:
        await server.serve_forever()


if __name__ == "__main__":
    _, _port, _to, _there, _back = sys.argv
    _host, _, _to_port = _to.rpartition(":")
    asyncio.run(serve(int(_port), _host, int(_to_port), float(_there), float(_back)))
