// Vercel's AI SDK, over each of its providers: ai_sdk.mjs NODE_MODULES URL KEY FOLDER MODEL FULL
import {createRequire} from "node:module";
import {readFileSync, writeFileSync, rmSync} from "node:fs";
import {strict as assert} from "node:assert";
import {pathToFileURL} from "node:url";

const [modules, url, key, folder, model, full] = process.argv.slice(2);
const require = createRequire(`${modules}/x.js`);
const load = async (name) => await import(pathToFileURL(require.resolve(name)).href);
globalThis.AI_SDK_LOG_WARNINGS = false;
const {streamText, generateText, tool, jsonSchema, isStepCount, stepCountIs, APICallError, RetryError} = await load("ai");
const {createOpenAI} = await load("@ai-sdk/openai");
const {createAnthropic} = await load("@ai-sdk/anthropic");
const {createGoogleGenerativeAI} = await load("@ai-sdk/google");
const {createOpenAICompatible} = await load("@ai-sdk/openai-compatible");

const wiresFor = (apiKey) => ({
  responses: createOpenAI({baseURL: `${url}/v1`, apiKey})(model),
  chat: createOpenAI({baseURL: `${url}/v1`, apiKey}).chat(model),
  compatible: createOpenAICompatible({name: "rt", baseURL: `${url}/v1`, apiKey})(model),
  anthropic: createAnthropic({baseURL: `${url}/v1`, apiKey})(model),
  google: createGoogleGenerativeAI({baseURL: `${url}/v1beta`, apiKey})(model),
});
const wires = wiresFor(key);
const strangers = wiresFor(`${key}x`);

const write_file = tool({
  description: "Write a file.",
  inputSchema: jsonSchema({
    type: "object",
    properties: {file_path: {type: "string"}, content: {type: "string"}},
    required: ["file_path", "content"],
  }),
  execute: async ({file_path, content}) => (writeFileSync(file_path, content), "written"),
});

for (const [name, wire] of Object.entries(wires)) {
  const file = `${folder}/notes.txt`;
  const edit = {role: "user", content: `[[edit ${file}]]`};
  const loop = {model: wire, tools: {write_file}, stopWhen: (stepCountIs ?? isStepCount)(4)};

  const edited = await generateText({...loop, messages: [edit]});
  const bytes = readFileSync(file);
  assert.equal(edited.text, "edited", name);
  rmSync(file);

  const streamed = streamText({...loop, messages: [edit]});
  let text = "";
  for await (const piece of streamed.textStream) text += piece;
  assert.equal(text, "edited", name);
  assert.deepEqual(readFileSync(file), bytes, name);
  const before = (await streamed.response).messages ?? (await streamed.responseMessages);

  const recalled = await generateText({...loop, messages: [edit, ...before, {role: "user", content: "[[recall it]]"}]});
  assert.equal(recalled.text, "recalled: edit recall", name);

  const leave = new AbortController();
  const hanging = streamText({model: wire, prompt: "[[hang now]]", abortSignal: leave.signal, onError() {}});
  for await (const piece of hanging.textStream) {
    assert.equal(piece, "hanging");
    leave.abort();
    break;
  }

  for (const [kind, status] of [["rate_limited", 429], ["context_length", 400], ["bad_request", 400]]) {
    try {
      await generateText({model: wire, prompt: `[[fail ${kind}]]`, maxRetries: 0});
      assert.fail(`${name}: ${kind} was no error`);
    } catch (error) {
      assert(APICallError.isInstance(error), `${name}: ${error}`);
      assert.equal(error.statusCode, status, name);
      assert.match(error.message, /as asked for/, name);
    }
    let told;
    const failing = streamText({model: wire, prompt: `[[fail ${kind}]]`, maxRetries: 0, onError: ({error}) => (told = error)});
    await failing.consumeStream({onError() {}});
    assert.equal(told?.statusCode, status, `${name}: ${kind}, streamed: ${told}`);
  }

  const refused = await generateText({model: strangers[name], prompt: "hi"}).then(() => assert.fail(name), (found) => found);
  assert.equal(refused.statusCode, 401, `${name}: ${refused}`);
}

const waits = async (name, verb, answer) => {
  let said = "";
  for await (const piece of streamText({model: wires[name], prompt: `[[${verb} now]]`}).textStream) said += piece;
  assert.equal(said, answer, name);
};
if (full === "full")
  await Promise.all(
    Object.keys(wires).flatMap((name) => [waits(name, "silent", "after silence"), waits(name, "pause", "before after")]),
  );
console.log("passed");
