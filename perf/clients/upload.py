"""Uploads a file with api.video's client for Python: upload.py URL FILE CHUNK_BYTES"""

import os
import sys

from apivideo.api.videos_api import VideosApi
from apivideo.auth_api_client import AuthenticatedApiClient
from apivideo.configuration import Configuration
from apivideo.model.video_creation_payload import VideoCreationPayload

url, path, chunk_bytes = sys.argv[1], sys.argv[2], int(sys.argv[3])
configuration = Configuration(host=url, chunk_size=chunk_bytes)
client = AuthenticatedApiClient(os.environ["APIVIDEO_API_KEY"], configuration=configuration)
client.configuration.host = url  # its constructor insists on the service's own address
client.connect()
videos = VideosApi(client)
video = videos.create(VideoCreationPayload(title="a movie"))
with open(path, "rb") as file:
    videos.upload(video.video_id, file)
