// Uploads a file with api.video's client for Node: upload.cjs URL FILE CHUNK_BYTES
const ApiVideoClient = require('@api.video/nodejs-client');

const [baseUri, file, chunkSize] = process.argv.slice(2);
const client = new ApiVideoClient({ apiKey: process.env.APIVIDEO_API_KEY, baseUri, chunkSize: Number(chunkSize) });

(async () => {
  const { videoId } = await client.videos.create({ title: 'a movie' });
  await client.videos.upload(videoId, file);
})().catch((error) => {
  console.error(error);
  process.exit(1);
});
