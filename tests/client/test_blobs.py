"""Blobs arrive whole or not at all."""

import hashlib

import google_crc32c
import grpc
import pytest

from chainrule.client import Client, DataLoss, Unavailable
from chainrule.v1 import blob_pb2
from tests.client.fake_server import BREAK, Failure, FakeServer, read_response

MIB = 1024 * 1024
CONTENT = bytes(range(256)) * (5 * MIB // 512)  # 2.5 MiB
DIGEST = hashlib.sha256(CONTENT).hexdigest()


def chunk(start: int, end: int) -> blob_pb2.ReadBlobResponse:
    return read_response(CONTENT[start:end])


def test_an_upload_is_named_by_its_sha256(server: FakeServer, client: Client) -> None:
    assert client.blobs.upload(CONTENT) == DIGEST
    assert server.blobs == {DIGEST: CONTENT}


def test_an_upload_tells_how_far_it_is(client: Client) -> None:
    seen: list[tuple[int, int]] = []
    client.blobs.upload(CONTENT, transferred=lambda done, size: seen.append((done, size)))
    size = len(CONTENT)
    assert seen == [(MIB, size), (2 * MIB, size), (size, size)]


def test_a_blob_that_is_there_is_not_sent_again(server: FakeServer, client: Client) -> None:
    seen: list[tuple[int, int]] = []
    client.blobs.upload(CONTENT)
    client.blobs.upload(CONTENT, transferred=lambda done, size: seen.append((done, size)))
    assert len(server.requests("WriteBlob")) == 1
    assert seen == [(len(CONTENT), len(CONTENT))]


def test_after_a_break_less_is_sent_at_a_time_and_then_more_again(server: FakeServer, client: Client) -> None:
    """What a connection that breaks has carried may be lost: small pieces arrive."""
    server.fail("WriteBlob", BREAK)
    assert client.blobs.upload(CONTENT) == DIGEST
    assert server.blobs == {DIGEST: CONTENT}
    offsets = [request.write_offset_bytes for request in server.requests("WriteBlob")]
    assert offsets == [0, 0, len(CONTENT) // 2]


def test_an_upload_goes_on_from_what_has_arrived(server: FakeServer, client: Client) -> None:
    server.arrived[DIGEST] = CONTENT[: MIB + 5]
    seen: list[tuple[int, int]] = []
    assert client.blobs.upload(CONTENT, transferred=lambda done, size: seen.append((done, size))) == DIGEST
    assert server.blobs == {DIGEST: CONTENT}
    assert [request.write_offset_bytes for request in server.requests("WriteBlob")] == [MIB + 5]
    assert seen == [(2 * MIB + 5, len(CONTENT)), (len(CONTENT), len(CONTENT))]


def test_an_upload_begins_anew_where_what_had_arrived_was_wrong(server: FakeServer, client: Client) -> None:
    server.arrived[DIGEST] = b"x" * MIB
    assert client.blobs.upload(CONTENT) == DIGEST
    assert [request.write_offset_bytes for request in server.requests("WriteBlob")][:2] == [MIB, 0]


@pytest.mark.parametrize("reason", ["CHUNK_DAMAGED", "UPLOAD_INCOMPLETE", "UPLOAD_OFFSET"])
def test_an_upload_goes_on_after_an_error_that_does_not_end_it(server: FakeServer, client: Client, reason: str) -> None:
    server.fail("WriteBlob", Failure(code=grpc.StatusCode.DATA_LOSS, message="once more", reason=reason))
    assert client.blobs.upload(CONTENT) == DIGEST
    assert server.blobs == {DIGEST: CONTENT}


def test_every_chunk_of_an_upload_says_its_checksum(server: FakeServer, client: Client) -> None:
    client.blobs.upload(CONTENT)
    [_, *chunks] = server.sent
    assert [google_crc32c.value(request.chunk) for request in chunks] == [request.chunk_crc32c for request in chunks]
    assert len(chunks) == 3


def test_an_upload_that_is_stored_as_something_else_is_data_loss(server: FakeServer, client: Client) -> None:
    server.stored_digest = "0" * 64
    with pytest.raises(DataLoss, match=f"SHA-256 {DIGEST}, but the server stored one .* with 0000"):
        client.blobs.upload(CONTENT)


def test_an_empty_blob_goes_there_and_back(client: Client) -> None:
    assert client.blobs.download(client.blobs.upload(b"")) == b""


def test_a_download_is_what_was_uploaded(client: Client) -> None:
    seen: list[int] = []
    assert client.blobs.download(client.blobs.upload(CONTENT), received=seen.append) == CONTENT
    assert seen == [MIB, 2 * MIB, len(CONTENT)]


def test_a_download_with_another_digest_is_data_loss(server: FakeServer, client: Client) -> None:
    server.blobs[DIGEST] = CONTENT[:-1] + b"!"
    with pytest.raises(DataLoss, match=f"asked for the blob with SHA-256 {DIGEST}") as caught:
        client.blobs.download(DIGEST)
    assert caught.value.reason == "DIGEST_MISMATCH"
    assert caught.value.metadata["expected"] == DIGEST


def test_a_broken_download_goes_on_where_it_stopped(server: FakeServer, client: Client) -> None:
    server.take("ReadBlob", chunk(0, MIB), BREAK)
    server.take("ReadBlob", chunk(MIB, MIB + 5), BREAK)
    server.take("ReadBlob", chunk(MIB + 5, len(CONTENT)))
    assert client.blobs.download(DIGEST) == CONTENT
    assert [request.offset_bytes for request in server.requests("ReadBlob")] == [0, MIB, MIB + 5]


def test_a_damaged_chunk_is_asked_for_again(server: FakeServer, client: Client) -> None:
    damaged = chunk(MIB, 2 * MIB)
    damaged.chunk = b"!" + damaged.chunk[1:]
    server.take("ReadBlob", chunk(0, MIB), damaged)
    server.take("ReadBlob", chunk(MIB, len(CONTENT)))
    assert client.blobs.download(DIGEST) == CONTENT
    assert [request.offset_bytes for request in server.requests("ReadBlob")] == [0, MIB]


def test_missing_names_what_the_server_does_not_hold(client: Client) -> None:
    client.blobs.upload(CONTENT)
    assert client.blobs.missing(["1" * 64, DIGEST, "2" * 64]) == ["1" * 64, "2" * 64]


def test_an_upload_to_a_server_that_stays_away_is_unavailable(server: FakeServer, client: Client) -> None:
    server.stop()
    with pytest.raises(Unavailable, match="chainrule serve"):
        client.blobs.upload(CONTENT)


def test_an_error_of_the_callback_of_an_upload_is_the_caller_s(server: FakeServer, client: Client) -> None:
    def fail(_sent: int, _total: int) -> None:
        raise ZeroDivisionError("of the callback")

    with pytest.raises(ZeroDivisionError, match="of the callback"):
        client.blobs.upload(bytes(3 * MIB), transferred=fail)
    assert server.blobs == {}


def test_an_upload_that_is_refused_before_it_began_is_made_again(server: FakeServer, client: Client) -> None:
    refusal = Failure(code=grpc.StatusCode.RESOURCE_EXHAUSTED, message="wait", reason="TOO_MANY_CALLS", retry_after_s=0)
    server.fail("WriteBlob", refusal)
    server.fail("QueryWriteStatus", refusal)
    assert client.blobs.upload(b"content") in server.blobs
