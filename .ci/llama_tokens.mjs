// The tokens of a text by llama.cpp (node-llama-cpp's CPU build), ids with commas between them:
//   node llama_tokens.mjs MODEL TEXT
import {createRequire} from "node:module";
import {pathToFileURL} from "node:url";

const require = createRequire(process.env.GRAFT_E2E_NODE + "/");
const {getLlama, LlamaLogLevel} = await import(pathToFileURL(require.resolve("node-llama-cpp")).href);
const [modelPath, text] = process.argv.slice(2);

const llama = await getLlama({gpu: false, build: "never", logLevel: LlamaLogLevel.error, maxThreads: 2});
const model = await llama.loadModel({modelPath, gpuLayers: 0, vocabOnly: true});
console.log(model.tokenize(text, false, "trimLeadingSpace").join(","));
await model.dispose();
process.exit(0);
