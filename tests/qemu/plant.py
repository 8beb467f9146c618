"""A machine for tests of the whole system: answers every read with a count, so that each sample is
another one.
"""

import asyncio
import itertools
import struct

count = itertools.count()


async def serve(reader, writer):
    while head := await reader.read(12):
        words = struct.unpack(">H", head[10:12])[0]
        values = struct.pack(">H", next(count) % 65536) * words
        answer = head[6:8] + bytes([len(values)]) + values
        writer.write(head[:4] + struct.pack(">H", len(answer)) + answer)


async def main():
    server = await asyncio.start_server(serve, "127.0.0.1", 5020)
    await server.serve_forever()


asyncio.run(main())
