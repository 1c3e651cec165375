// The official Node client: all its upload methods, and its queries for the uploaded videos.

import assert from 'node:assert/strict';
import { readdirSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';

const { ENDPOINT_URL, APIVIDEO_API_KEY, SMALL, LARGE, PARTS, NODE_MODULES } = process.env;
const ApiVideoClient = createRequire(join(NODE_MODULES, 'x'))('@api.video/nodejs-client');

const CHUNK_BYTES = 5 * 1024 * 1024;
const client = new ApiVideoClient({ apiKey: APIVIDEO_API_KEY, baseUri: ENDPOINT_URL, chunkSize: CHUNK_BYTES });
const stranger = new ApiVideoClient({ baseUri: ENDPOINT_URL, chunkSize: CHUNK_BYTES });
const parts = readdirSync(PARTS).filter((name) => name.startsWith('part.')).sort().map((name) => join(PARTS, name));

const cases = {
  async regular() {
    const { videoId } = await client.videos.create({ title: 'regular' });
    const video = await client.videos.upload(videoId, SMALL);
    assert.equal(video.title, 'regular');
    return [video, SMALL];
  },

  async chunked() {
    const { videoId } = await client.videos.create({ title: 'chunked' });
    const seen = [];
    const video = await client.videos.upload(videoId, LARGE, (progress) => seen.push(progress.currentChunk));
    assert.equal(seen.at(-1), parts.length - 1);
    const { ingest } = await client.videos.getStatus(videoId);
    assert.deepEqual(ingest.receivedParts.parts, parts.map((_, index) => index + 1));
    assert.equal(ingest.receivedParts.total, parts.length);
    return [video, LARGE];
  },

  async progressive() {
    const { videoId } = await client.videos.create({ title: 'progressive' });
    const video = await send(client.videos.createUploadProgressiveSession(videoId));
    assert.equal(video.title, 'progressive');
    return [video, LARGE];
  },

  async delegated() {
    const { token } = await client.uploadTokens.createToken({ ttl: 600 });
    const video = await stranger.videos.uploadWithUploadToken(token, SMALL);
    assert.equal(video.title, 'small.mp4');
    return [video, SMALL];
  },

  async 'delegated-progressive'() {
    const { token } = await client.uploadTokens.createToken({});
    const video = await send(stranger.videos.createUploadWithUploadTokenProgressiveSession(token));
    assert.equal(video.title, 'part.a');
    return [video, LARGE];
  },

  async questions() {
    const token = await client.getAccessToken();
    assert.equal(token.expiresIn, 3600);
    const described = { title: 'asked for', tags: ['node', 'interop'], metadata: [{ key: 'shelf', value: '7' }] };
    const { videoId } = await client.videos.create(described);
    await client.videos.update(videoId, { description: 'changed' });
    for (const query of [{ title: 'asked for' }, { tags: ['node'] }, { metadata: { shelf: '7' } }]) {
      const { data } = await client.videos.list(query);
      assert.deepEqual(data.map((video) => [video.videoId, video.description]), [[videoId, 'changed']]);
    }
    await client.videos.delete(videoId);
    await assert.rejects(client.videos.get(videoId), { code: 404 });
  },

  async refusals() {
    const thief = new ApiVideoClient({ apiKey: 'not the key', baseUri: ENDPOINT_URL });
    await assert.rejects(thief.videos.list(), { code: 401 });
    const { videoId } = await client.videos.create({ title: 'filled' });
    await client.videos.upload(videoId, SMALL);
    await assert.rejects(client.videos.upload(videoId, SMALL), ({ code, problemDetails }) => {
      assert.equal(code, 400);
      assert.match(problemDetails.type, /video-source-already-uploaded$/);
      return true;
    });
  },
};

async function send(session) {
  for (const part of parts.slice(0, -1)) {
    await session.uploadPart(part);
  }
  return session.uploadLastPart(parts.at(-1));
}

for (const [name, run] of Object.entries(cases)) {
  try {
    const [video, file] = (await run()) ?? [];
    console.log(video ? `${name} ok ${video.videoId} ${file}` : `${name} ok`);
  } catch (error) {
    console.error(error);
    console.log(`${name} failed ${error.message.split('\n')[0]}`);
  }
}
