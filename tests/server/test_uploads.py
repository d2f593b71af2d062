"""Files: kept by content, listed, signed, deleted; what is no JSON Lines is refused."""

import hashlib
import json
import resource
import socket
from urllib.parse import urlsplit

import httpx2
import pytest

from tests.server.conftest import chats, upload


def test_the_same_name_and_content_is_kept_once(client):
    first = upload(client, "once.jsonl", chats(3))

    assert upload(client, "once.jsonl", chats(3)) == first
    assert upload(client, "other.jsonl", chats(3)) != first
    assert upload(client, "once.jsonl", chats(4)) != first


def test_a_file_comes_back_as_it_was(client, server):
    file_id = upload(client, "as-it-was.jsonl", chats(5))
    content = client.get(f"/v1/files/{file_id}/content").content
    file = client.get(f"/v1/files/{file_id}").json()

    assert (file["bytes"], file["num_lines"], file["deleted"]) == (len(content), 5, False)
    assert file["signature"] == hashlib.sha256(content).hexdigest()[:16]
    assert (file["sample_type"], file["purpose"], file["source"]) == (
        "instruct",
        "fine-tune",
        "upload",
    )
    signed = client.get(f"/v1/files/{file_id}/url", params={"expiry": 1}).json()["url"]
    assert httpx2.get(signed, trust_env=False).content == content  # without a key
    assert httpx2.get(signed[:-1] + "x", trust_env=False).status_code == 403
    assert httpx2.get(signed.partition("?")[0], trust_env=False).status_code == 401


def test_lists_are_filtered_and_paged(client):
    for number in range(3):
        upload(client, f"paged-{number}.jsonl", chats(1, number))
    texts = upload(client, "paged-texts.jsonl", [{"text": "a document"}])

    def names(**query):
        page = client.get("/v1/files", params={"search": "PAGED"} | query).json()
        return [file["filename"] for file in page["data"]], page["total"]

    assert names() == (["paged-texts.jsonl", "paged-2.jsonl", "paged-1.jsonl", "paged-0.jsonl"], 4)
    assert names(page=1, page_size=3) == (["paged-0.jsonl"], 4)
    assert names(include_total=False)[1] is None
    assert names(sample_type="pretrain") == (["paged-texts.jsonl"], 1)
    assert names(purpose="batch") == names(source="mistral") == names(mimetypes="a/b") == ([], 0)
    assert client.delete(f"/v1/files/{texts}").json() == {
        "id": texts,
        "object": "file",
        "deleted": True,
    }
    assert client.get(f"/v1/files/{texts}").status_code == 404
    assert client.delete(f"/v1/files/{texts}").status_code == 404


def test_a_file_of_one_user_is_nobody_elses(client, server):
    mine = upload(client, "mine.jsonl", chats(2), visibility="user")
    with server.client("another") as other:
        assert other.get(f"/v1/files/{mine}").status_code == 404
        assert mine not in [file["id"] for file in other.get("/v1/files").json()["data"]]
        theirs = upload(other, "mine.jsonl", chats(2))
        assert theirs != mine
        own = upload(other, "mine.jsonl", chats(2), visibility="user")
        assert own not in (mine, theirs)
    assert upload(client, "mine.jsonl", chats(2), visibility="user") == mine
    assert upload(client, "mine.jsonl", chats(2)) == theirs


@pytest.mark.parametrize(
    ("name", "content", "fact"),
    [
        ("a.csv", b"a,b\n", "only files named .jsonl"),
        ("a.jsonl", b"", "the file is empty"),
        ("a.jsonl", b"not json\n", "not JSON"),
        ("a.jsonl", b"[1]\n", "not a JSON object"),
    ],
)
def test_what_is_no_json_lines_is_refused(client, name, content, fact):
    reply = client.post("/v1/files", files={"file": (name, content)}, data={"purpose": "fine-tune"})

    assert reply.status_code == 422
    assert reply.json()["detail"] == "Invalid file format."
    assert fact in reply.json()["message"]


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("application/json", b"{}"),
        ("multipart/form-data", b"--x--"),
        ("multipart/form-data; boundary=x", b"--x--\r\n"),
        (
            "multipart/form-data; boundary=x",
            b'--x\r\nContent-Disposition: form-data; name="file"; fil',
        ),
        ("multipart/form-data; boundary=x", b"nothing of a form"),
        (f"multipart/form-data; boundary={'x' * 300}", b""),
    ],
)
def test_what_is_no_form_is_refused(client, server, content_type, body):
    reply = client.post("/v1/files", content=body, headers={"Content-Type": content_type})

    assert reply.status_code == 422
    assert reply.json()["detail"][0]["loc"][0] == "body"
    assert not list((server.folder / "files").glob(".incoming*"))


def test_a_full_disk_is_said_and_leaves_nothing(serve):
    server = serve()
    rows = chats(20_000)
    with server.client() as client:
        kept = upload(client, "kept.jsonl", chats(2))
        resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (2**20, resource.RLIM_INFINITY))
        data = "".join(json.dumps(row) + "\n" for row in rows).encode()
        reply = client.post("/v1/files", files={"file": ("large.jsonl", data)})
        assert (reply.status_code, reply.json()) == (507, {"detail": "The server's disk is full."})
        assert [path.name for path in (server.folder / "files").iterdir()] == [kept]

        infinity = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
        resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, infinity)
        assert upload(client, "large.jsonl", rows) != kept


def test_an_upload_over_the_limit_is_refused_before_it_is_read(server):
    address = urlsplit(server.url)
    with socket.create_connection((address.hostname, address.port)) as line:
        line.sendall(
            f"POST /v1/files HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {server.key()}\r\n"
            "Content-Type: multipart/form-data; boundary=x\r\nContent-Length: 600000000\r\n\r\n".encode()
        )
        assert line.recv(100).startswith(b"HTTP/1.1 413")
