// Trains a network through the service and fetches its weights: node train.mjs ADDRESS WEIGHTS EXAMPLES
// WEIGHTS and EXAMPLES are safetensors files; architecture.json and config.json lie beside this one.
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { connect } from "./reflection.mjs";

const CHUNK_BYTES = 64 * 1024;
const ENDED = ["STATE_SUCCEEDED", "STATE_FAILED", "STATE_CANCELLED"];

const [address, weightsFile, examplesFile] = process.argv.slice(2);
const services = await connect(address);
const { "chainrule.v1.BlobService": blobs, "chainrule.v1.ModelService": models } = services;
const { "chainrule.v1.DatasetService": datasets, "chainrule.v1.JobService": jobs } = services;
const sha256 = (content) => createHash("sha256").update(content).digest("hex");
const deadline = () => ({ deadline: Date.now() + 120_000 });

function call(service, method, request) {
  return new Promise((resolve, reject) => {
    service[method](request, deadline(), (error, answer) => (error ? reject(error) : resolve(answer)));
  });
}

async function upload(content) {
  const digest = sha256(content);
  const { missing_digests: missing } = await call(blobs, "FindMissingBlobs", { digests: [digest] });
  if (missing.length) {
    await new Promise((resolve, reject) => {
      const sending = blobs.WriteBlob(deadline(), (error, blob) => (error ? reject(error) : resolve(blob)));
      sending.write({ blob: { digest, size_bytes: content.length } });
      for (let at = 0; at < content.length; at += CHUNK_BYTES) {
        sending.write({ chunk: content.subarray(at, at + CHUNK_BYTES) });
      }
      sending.end();
    });
  }
  return digest;
}

// A google.protobuf.Struct of numbers; maps are lists of entries where messages are made from descriptors.
function struct(values) {
  return { fields: Object.entries(values).map(([key, value]) => ({ key, value: { number_value: value } })) };
}

const read = (name) => JSON.parse(readFileSync(new URL(name, import.meta.url)));
const architecture = read("architecture.json");
const model = await call(models, "CreateModel", {
  model_id: "from-node",
  model: {
    builtin: { family: architecture.family, config: struct(architecture.config) },
    weights_digest: await upload(readFileSync(weightsFile)),
  },
});
const dataset = await call(datasets, "CreateDataset", {
  dataset_id: "from-node",
  dataset: { digest: await upload(readFileSync(examplesFile)) },
});
const submitted = await call(jobs, "CreateJob", {
  job: { model: model.name, dataset: dataset.name, config: read("config.json") },
  request_id: `from-node-${process.pid}-${Date.now()}`,
});

const states = [];
let job = submitted;
for await (job of jobs.WatchJob({ name: submitted.name }, deadline())) {
  if (states.at(-1) !== job.state) states.push(job.state);
}
if (!ENDED.includes(job.state)) throw new Error(`the stream ended while ${job.name} was ${job.state}`);

const chunks = [];
for await (const { chunk } of blobs.ReadBlob({ digest: job.weights_digest }, deadline())) chunks.push(chunk);
const weights = Buffer.concat(chunks);
console.log(JSON.stringify({
  job: job.name, states, weights_digest: job.weights_digest, sha256: sha256(weights), size_bytes: weights.length,
}));
for (const service of Object.values(services)) service.close();
