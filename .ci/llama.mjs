// Next-token probabilities by llama.cpp (node-llama-cpp's CPU build), for comparison with graft's:
//   node llama.mjs OUT.json MODEL IDS [ADAPTER[=SCALE]]
// IDS are token ids separated by commas. OUT.json gets, for each position, the probability of every token that has one.
import {writeFileSync} from "node:fs";
import {createRequire} from "node:module";
import {pathToFileURL} from "node:url";

const require = createRequire(process.env.GRAFT_E2E_NODE + "/");
const {getLlama, LlamaLogLevel} = await import(pathToFileURL(require.resolve("node-llama-cpp")).href);
const [out, modelPath, ids, adapter] = process.argv.slice(2);

const llama = await getLlama({gpu: false, build: "never", logLevel: LlamaLogLevel.error, maxThreads: 2});
const model = await llama.loadModel({modelPath, gpuLayers: 0});
const tokens = ids.split(",").map(Number);
const options = {contextSize: Math.max(64, tokens.length + 8), batchSize: 512, flashAttention: false};
if (adapter) {
    const [filePath, scale] = adapter.split("=");
    options.lora = {adapters: [{filePath, scale: scale ? Number(scale) : 1}]};
}
const context = await model.createContext(options);
const result = await context.getSequence().controlledEvaluate(tokens.map((t) => [t, {generateNext: {probabilities: true}}]));
writeFileSync(out, JSON.stringify(result.map((r) => Object.fromEntries(r.next.probabilities))));
await model.dispose();
process.exit(0);
