"""The official Python client: every way that it uploads, and its questions about what it uploaded."""

import os
import pathlib
import traceback

from apivideo.api.upload_tokens_api import UploadTokensApi
from apivideo.api.videos_api import VideosApi
from apivideo.auth_api_client import AuthenticatedApiClient
from apivideo.configuration import Configuration
from apivideo.exceptions import NotFoundException

SMALL, LARGE = os.environ["SMALL"], os.environ["LARGE"]
PARTS = sorted(pathlib.Path(os.environ["PARTS"]).glob("part.*"))


def connected():
    settings = Configuration(chunk_size=5 << 20, ssl_ca_cert=os.environ["CA_CERT"] or None)
    client = AuthenticatedApiClient(os.environ["APIVIDEO_API_KEY"], configuration=settings)
    # The constructor knows the two environments of the service only.
    client.configuration.host = os.environ["ENDPOINT_URL"]
    client.connect()
    return client


CLIENT = connected()
VIDEOS = VideosApi(CLIENT)
TOKENS = UploadTokensApi(CLIENT)


def regular():
    video = VIDEOS.create({"title": "regular"})
    with open(SMALL, "rb") as film:
        return VIDEOS.upload(video.video_id, film), SMALL


def chunked():
    video = VIDEOS.create({"title": "chunked"})
    with open(LARGE, "rb") as film:
        return VIDEOS.upload(video.video_id, film), LARGE


def progressive():
    video = VIDEOS.create({"title": "progressive"})
    return send(VIDEOS.create_upload_progressive_session(video.video_id)), LARGE


def delegated():
    token = TOKENS.create_token({"ttl": 600}).token
    with open(SMALL, "rb") as film:
        return VIDEOS.upload_with_upload_token(token, film), SMALL


def delegated_progressive():
    token = TOKENS.create_token({}).token
    return send(VIDEOS.create_upload_with_upload_token_progressive_session(token)), LARGE


def questions():
    CLIENT.refresh_token()
    video = VIDEOS.create({"title": "asked for", "tags": ["python"]})
    VIDEOS.update(video.video_id, {"description": "changed"})
    found = VIDEOS.list(tags=["python"]).data
    assert [(v.video_id, v.description) for v in found] == [(video.video_id, "changed")], found
    VIDEOS.delete(video.video_id)
    try:
        VIDEOS.get_status(video.video_id)
    except NotFoundException:
        return None
    raise AssertionError("a deleted video has a status")


def send(session):
    for path in PARTS[:-1]:
        with open(path, "rb") as part:
            session.uploadPart(part)
    with open(PARTS[-1], "rb") as part:
        return session.uploadLastPart(part)


for case in [regular, chunked, progressive, delegated, delegated_progressive, questions]:
    name = case.__name__.replace("_", "-")
    try:
        outcome = case()
        print(name, "ok", *([outcome[0].video_id, outcome[1]] if outcome else []))
    except Exception as error:
        traceback.print_exc()
        print(name, "failed", str(error).partition("\n")[0])
