"""pycrdt-websocket in uvicorn, in memory: python pycrdt_server.py PORT"""

import asyncio
import sys

import uvicorn
from pycrdt.websocket import ASGIServer, WebsocketServer


async def main(port: int) -> None:
    # Documents stay when everybody has left: others join them later.
    async with WebsocketServer(auto_clean_rooms=False) as server:
        config = uvicorn.Config(ASGIServer(server), host="127.0.0.1", port=port, log_level="error")
        await uvicorn.Server(config).serve()


asyncio.run(main(int(sys.argv[1])))
