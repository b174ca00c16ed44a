// SmolLM2 from its GGUF file in llama.cpp, beside bench/run --anchors: names in, nanoseconds out, line by line.
import {createInterface} from "node:readline";
import {getLlama, getModuleVersion} from "node-llama-cpp";

const [file, threads] = process.argv.slice(2);
const llama = await getLlama({gpu: false, build: "never", logLevel: "error"});
const model = await llama.loadModel({modelPath: file});
const prompt = (length) => Array.from({length}, (_, at) => ((at * 7919) % 28000) + 1000);

// Milliseconds to the first token behind a prompt, and then for each further one.
async function generate(length, count) {
  const context = await model.createContext({contextSize: 512, threads: Number(threads), batchSize: 512});
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
  "llama decode f32": async () => (await generate(32, 32)).token * 32,
  "llama prompt f32": async () => (await generate(256, 1)).prompt,
  "llama generate": async () => {
    const {prompt, token} = await generate(32, 63);
    return prompt + 63 * token;
  },
  facts: async () => `node-llama-cpp ${await getModuleVersion()}, ${threads} threads`,
};

for await (const line of createInterface({input: process.stdin})) {
  const answer = await figures[line]();
  console.log(typeof answer === "number" ? Math.round(answer * 1e6) : answer);
}
process.exit(0);
