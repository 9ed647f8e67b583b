// The extension's own command and options, spoken to the language server that `SPARSEC` names, or the one on the path.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import test from "node:test";

const require = createRequire(import.meta.url);
const protocol = require("vscode-languageserver-protocol/node");
const textmate = require("vscode-textmate");
const oniguruma = require("vscode-oniguruma");
const { initializationOptions, isPicture, PICTURE, serverCommand } = require("../out/server.js");

const URI = "file:///somewhere/p.sparse";
const TEXT = "pattern p { heads 4  causal  attend windw(64) }\n";

test("the server answers what the extension asks", { timeout: 60_000 }, async () => {
  const { command, args } = serverCommand(process.env.SPARSEC ? [process.env.SPARSEC, "lsp"] : undefined);
  const server = spawn(command, args, { stdio: ["pipe", "pipe", "inherit"] });
  const ended = new Promise((resolve) => server.on("exit", resolve));
  const connection = protocol.createProtocolConnection(
    new protocol.StreamMessageReader(server.stdout),
    new protocol.StreamMessageWriter(server.stdin),
  );
  const waiting = [];
  connection.onNotification(protocol.PublishDiagnosticsNotification.type, (found) => waiting.shift()?.(found));
  const problems = () => new Promise((resolve) => waiting.push(resolve));
  connection.listen();
  const settings = { heads: 2, kvHeads: null, seqLen: 1024 };
  const started = await connection.sendRequest(protocol.InitializeRequest.type, {
    processId: process.pid,
    rootUri: null,
    capabilities: {},
    initializationOptions: initializationOptions((name) => settings[name]),
  });
  for (const able of ["hoverProvider", "completionProvider", "renameProvider", "documentFormattingProvider"]) {
    assert.ok(started.capabilities[able], able);
  }
  assert.ok(started.capabilities.executeCommandProvider.commands.includes(PICTURE));
  await connection.sendNotification(protocol.InitializedNotification.type, {});

  const first = problems();
  const textDocument = { uri: URI, languageId: "sparse", version: 1, text: TEXT };
  await connection.sendNotification(protocol.DidOpenTextDocumentNotification.type, { textDocument });
  assert.deepEqual((await first).diagnostics.map((problem) => problem.code), ["E101"]);

  const second = problems();
  await connection.sendNotification(protocol.DidChangeTextDocumentNotification.type, {
    textDocument: { uri: URI, version: 2 },
    contentChanges: [{ text: TEXT.replace("windw", "window") }],
  });
  assert.deepEqual((await second).diagnostics, []);
  const picture = await connection.sendRequest(protocol.ExecuteCommandRequest.type, {
    command: PICTURE,
    arguments: [URI, "p"],
  });
  assert.ok(isPicture(picture) && picture.html.includes("<svg"));

  await connection.sendRequest(protocol.ShutdownRequest.type);
  await connection.sendNotification(protocol.ExitNotification.type);
  assert.equal(await ended, 0);
});

test("a setting that is no command counts as none", () => {
  for (const given of [undefined, [], [1], "sparsec"]) {
    assert.deepEqual(serverCommand(given), { command: "sparsec", args: ["lsp"] });
  }
  assert.deepEqual(serverCommand(["a", "b", "c"]), { command: "a", args: ["b", "c"] });
});

test("the editor's own engine reads the TextMate grammar", async () => {
  const wasm = readFileSync(require.resolve("vscode-oniguruma/release/onig.wasm"));
  await oniguruma.loadWASM(wasm.buffer.slice(wasm.byteOffset, wasm.byteOffset + wasm.byteLength));
  const path = new URL("../syntaxes/sparse.tmLanguage.json", import.meta.url);
  const registry = new textmate.Registry({
    onigLib: Promise.resolve({
      createOnigScanner: (patterns) => new oniguruma.OnigScanner(patterns),
      createOnigString: (text) => new oniguruma.OnigString(text),
    }),
    loadGrammar: async () => textmate.parseRawGrammar(readFileSync(path, "utf8"), "sparse.tmLanguage.json"),
  });
  const grammar = await registry.loadGrammar("source.sparse");
  const line = "where h in [0, 3..8] attend window(16b) | near - stride(4k, phase = -h)  # said";
  const scopes = grammar
    .tokenizeLine(line, textmate.INITIAL)
    .tokens.map((token) => [line.slice(token.startIndex, token.endIndex).trim(), token.scopes.at(-1)])
    .filter(([text]) => text);
  const of = (text) => scopes.find((each) => each[0] === text)?.[1];
  assert.equal(of("where"), "keyword.control.sparse");
  assert.equal(of("in"), "keyword.operator.sparse");
  assert.equal(of("window"), "entity.name.function.term.sparse");
  assert.equal(of("16b"), "constant.numeric.sparse");
  assert.equal(of("near"), "variable.other.sparse");
  assert.equal(of("h"), "variable.language.sparse");
  assert.equal(of("# said"), "comment.line.number-sign.sparse");
  assert.ok(scopes.every(([, scope]) => scope !== "invalid.illegal.sparse" && scope !== "source.sparse"));
});
