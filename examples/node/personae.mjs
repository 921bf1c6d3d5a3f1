#!/usr/bin/env node
// From a folder of pictures to four pictures of the same character, over gRPC and from the protos alone.
// It owns the whole loop: create a dataset, train, watch until the end whatever the network does, generate.
import { mkdir, readFile, readdir, writeFile } from "node:fs/promises";
import { basename, extname, join } from "node:path";
import { Readable } from "node:stream";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";

import grpc from "@grpc/grpc-js";
import { loadSync } from "@grpc/proto-loader";

const USAGE =
  "usage: node personae.mjs --trainer HOST:PORT --inference HOST:PORT --pictures FOLDER --name ID --out FOLDER " +
  "[--steps N] [--protos FOLDER]";
const SCENES = ["happy", "sad", "surprised", "neutral"];
const CHUNK_BYTES = 1024 * 1024; // the contract's limit for one chunk
const CALL_S = 30;
const GENERATION_S = 600;
const MAX_CUTS = 10; // in a row, before a watch gives up
// A server that died without a word is noticed by pings.
const CHANNEL = { "grpc.keepalive_time_ms": 10_000, "grpc.keepalive_timeout_ms": 5_000 };

const within = (seconds) => ({ deadline: Date.now() + seconds * 1000 });

// Calls a method with one answer, which it promises.
function ask(client, method, request) {
  return new Promise((resolve, reject) => {
    client[method](request, within(CALL_S), (error, answer) => (error ? reject(error) : resolve(answer)));
  });
}

// The messages of an upload: the header, then for each picture its announcement and its bytes.
async function* uploadMessages(dataset, folder) {
  yield { header: { dataset } };
  for (const filename of (await readdir(folder)).sort()) {
    if (!/\.(jpe?g|png|webp)$/i.test(filename)) continue;
    const content = await readFile(join(folder, filename));
    // The caption of x.png is what x.txt beside it says, if it is there.
    const captionFile = join(folder, `${basename(filename, extname(filename))}.txt`);
    const caption = await readFile(captionFile, "utf8").catch(() => "");
    yield { image: { filename, size_bytes: content.length, caption: caption.trim() } };
    for (let start = 0; start < content.length; start += CHUNK_BYTES) {
      yield { chunk: content.subarray(start, start + CHUNK_BYTES) };
    }
  }
}

async function createDataset(trainer, folder) {
  const request = { parent: "projects/default", request_id: crypto.randomUUID() };
  const { dataset } = await ask(trainer, "CreateDataset", request);
  const uploaded = await new Promise((resolve, reject) => {
    const done = (error, answer) => (error ? reject(error) : resolve(answer));
    const call = trainer.UploadImages(within(GENERATION_S), done);
    const messages = Readable.from(uploadMessages(dataset.name, folder));
    messages.on("error", (error) => {
      reject(error);
      call.cancel();
    });
    messages.pipe(call); // sends no faster than the server takes them
  });
  return uploaded.dataset;
}

// Every event of a training, in order, up to its end. A cut stream is taken up after the last sequence seen, so that
// nothing is lost or repeated.
async function* watch(trainer, name) {
  let [seen, cuts, ended] = [0, 0, false];
  while (!ended) {
    try {
      for await (const message of trainer.WatchTraining({ name, after_sequence: seen })) {
        cuts = 0;
        if (message.kind !== "event") continue; // a heartbeat: the server is alive
        seen = Number(message.event.sequence);
        ended = message.event.kind === "ended";
        yield message.event;
      }
      if (!ended) await sleep(1_000); // the server stopped in good order
    } catch (error) {
      if (error.code !== grpc.status.UNAVAILABLE || cuts >= MAX_CUTS) throw error;
      cuts += 1;
      await sleep(Math.min(200 * 2 ** cuts, 5_000));
    }
  }
}

async function train(trainer, dataset, adapterId, steps) {
  const request = {
    parent: "projects/default",
    training: { dataset: dataset.name, adapter_id: adapterId, config: steps ? { steps: Number(steps) } : {} },
    request_id: crypto.randomUUID(), // makes a repeat of this very request safe
    new_version: true,
  };
  const { training } = await ask(trainer, "CreateTraining", request);
  for await (const event of watch(trainer, training.name)) {
    const { sequence, kind, progress, ended } = event;
    console.log(sequence, kind, progress ? `${progress.stage} ${progress.completed}/${progress.total}` : "");
    if (!ended) continue;
    if (ended.state !== "STATE_SUCCEEDED") throw new Error(`${ended.state}: ${ended.failure?.message ?? ""}`);
    return (await ask(trainer, "GetAdapter", { name: ended.adapter })).adapter;
  }
}

async function generate(inference, adapter, folder) {
  const subject = `a picture of ${adapter.trigger_word} ${adapter.class_noun}`;
  const prompts = SCENES.map((scene, place) => ({ text: `${subject}, ${scene}`, seeds: [place + 1] }));
  await mkdir(folder, { recursive: true });
  const request = { adapters: [{ adapter: adapter.name }], prompts };
  for await (const { kind, image } of inference.Generate(request, within(GENERATION_S))) {
    if (kind !== "image") continue;
    if (image.finish_reason !== "FINISH_REASON_COMPLETED") console.log(`image ${image.index}: ${image.finish_reason}`);
    else await writeFile(join(folder, `${image.index}-${SCENES[image.prompt_index]}.png`), image.content);
  }
}

async function main() {
  const names = ["trainer", "inference", "pictures", "name", "out", "steps", "protos"];
  const { values } = parseArgs({ options: Object.fromEntries(names.map((name) => [name, { type: "string" }])) });
  if (names.slice(0, 5).some((name) => !values[name])) throw new Error(USAGE);

  const protos = values.protos ?? fileURLToPath(new URL("../../protos", import.meta.url));
  const files = ["personae/v1/trainer.proto", "personae/v1/inference.proto"];
  // 64-bit numbers as strings: a seed does not fit a JavaScript number. `oneofs` says which part of a message is set.
  const options = { includeDirs: [protos], keepCase: true, longs: String, enums: String, oneofs: true, defaults: true };
  const { v1 } = grpc.loadPackageDefinition(loadSync(files, options)).personae;
  const trainer = new v1.TrainerService(values.trainer, grpc.credentials.createInsecure(), CHANNEL);
  const inference = new v1.InferenceService(values.inference, grpc.credentials.createInsecure(), CHANNEL);

  const dataset = await createDataset(trainer, values.pictures);
  console.log(`${dataset.report.accepted_count} pictures accepted, ${dataset.report.rejected_count} refused`);
  const adapter = await train(trainer, dataset, values.name, values.steps);
  console.log(`published ${adapter.name}`);
  await generate(inference, adapter, values.out);
  console.log(`pictures are in ${values.out}`);
  trainer.close();
  inference.close();
}

main().catch((error) => {
  // A failed call has a code; its text names every field that is wrong, parted by semicolons.
  const status = grpc.status[error.code];
  console.error(status ? `${status}\n  ${error.details.replaceAll("; ", "\n  ")}` : error.message);
  process.exit(1);
});
