"""A grpc.aio server that does nothing but answer from memory: what the stack itself can do on this machine."""

from __future__ import annotations

import argparse
import asyncio
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc

from chainrule.v1 import blob_pb2, job_pb2

SERVICE = "chainrule.benchmark.Bare"
CHUNK_BYTES = 1024**2
"""As the service sends them."""
OPTIONS = (("grpc.max_receive_message_length", 16 * 1024**2), ("grpc.max_send_message_length", 16 * 1024**2))


def job_of(reply_bytes: int) -> job_pb2.Job:
    """A job whose message is of that size, give or take some bytes."""
    return job_pb2.Job(name="jobs/echo", fingerprint="x" * max(0, reply_bytes - 16))


async def serve(address_file: Path, reply_bytes: int) -> None:
    """Serve until SIGTERM."""
    reply = job_of(reply_bytes)
    chunk = bytes(CHUNK_BYTES)

    async def get_job(_request: job_pb2.GetJobRequest, _context: Any) -> job_pb2.Job:
        return reply

    async def read_blob(request: blob_pb2.ReadBlobRequest, _context: Any) -> AsyncIterator[blob_pb2.ReadBlobResponse]:
        left = request.limit_bytes
        while left > 0:
            yield blob_pb2.ReadBlobResponse(chunk=chunk[:left], chunk_crc32c=1)
            left -= CHUNK_BYTES

    handlers: dict[str, Any] = {
        "GetJob": grpc.unary_unary_rpc_method_handler(
            get_job, job_pb2.GetJobRequest.FromString, job_pb2.Job.SerializeToString
        ),
        "ReadBlob": grpc.unary_stream_rpc_method_handler(
            read_blob, blob_pb2.ReadBlobRequest.FromString, blob_pb2.ReadBlobResponse.SerializeToString
        ),
    }
    server = grpc.aio.server(options=OPTIONS)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    await server.start()
    temporary = address_file.with_suffix(".new")
    temporary.write_text(f"127.0.0.1:{port}\n")
    temporary.rename(address_file)
    await stop.wait()
    await server.stop(1.0)


def main() -> None:
    """What runs in the process."""
    parser = argparse.ArgumentParser(description="A bare server, for comparison.")
    parser.add_argument("--address-file", type=Path, required=True)
    parser.add_argument("--reply-bytes", type=int, default=1000)
    options = parser.parse_args()
    asyncio.run(serve(options.address_file, options.reply_bytes))


if __name__ == "__main__":
    main()
