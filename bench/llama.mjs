// SmolLM2 from GGUF files in llama.cpp, beside bench/run --anchors: names in, nanoseconds out, line by line.
// The arguments are the number of threads and the files, each as type=path.
import {createInterface} from "node:readline";
import {getLlama, getModuleVersion} from "node-llama-cpp";

const [threads, ...files] = process.argv.slice(2);
const paths = Object.fromEntries(files.map((file) => file.split(/=(.*)/s)));
const llama = await getLlama({gpu: false, build: "never", logLevel: "error"});
const prompt = (length) => Array.from({length}, (_, at) => ((at * 7919) % 28000) + 1000);

// One model at a time.
let loaded = {};
async function model(type) {
  if (loaded.type !== type) {
    await loaded.model?.dispose();
    loaded = {type, model: await llama.loadModel({modelPath: paths[type]})};
  }
  return loaded.model;
}

// Milliseconds to the first token behind a prompt, and then for each further one.
async function generate(type, length, count) {
  const context = await (await model(type)).createContext({contextSize: 512, threads: Number(threads), batchSize: 512});
  const start = performance.now();
  let first = 0, said = 0;
  for await (const _ of context.getSequence().evaluate(prompt(length), {temperature: 0})) {
    if (said++ === 0) first = performance.now();
    if (said > count) break;
  }
  const end = performance.now();
  await context.dispose();
  return {prompt: first - start, token: (end - first) / count};
}

const figures = {
  decode: async (type) => (await generate(type, 32, 32)).token * 32,
  prompt: async (type) => (await generate(type, 256, 1)).prompt,
  generate: async (type) => {
    const {prompt, token} = await generate(type, 32, 63);
    return prompt + 63 * token;
  },
};

for await (const line of createInterface({input: process.stdin})) {
  if (line === "facts") {
    console.log(`node-llama-cpp ${await getModuleVersion()}, ${threads} threads`);
    continue;
  }
  // "llama quant decode q8_0"; what names no type of blocks is measured beside the file of the package's type.
  const words = line.split(" ");
  const type = words.find((word) => word in paths) ?? "q4_1";
  const answer = await figures[words.find((word) => word in figures)](type);
  console.log(Math.round(answer * 1e6));
}
process.exit(0);
