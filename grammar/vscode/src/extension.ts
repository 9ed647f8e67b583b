// The extension: starts `sparsec lsp` for `.sparse` files, and shows the pictures that it draws.

import { commands, ExtensionContext, ViewColumn, window, workspace } from "vscode";
import { LanguageClient } from "vscode-languageclient/node";
import { initializationOptions, isPicture, PICTURE, Picture, serverCommand } from "./server";

const SECTION = "sparsec";
let client: LanguageClient | undefined;

export async function activate(context: ExtensionContext): Promise<void> {
  context.subscriptions.push(
    commands.registerCommand("sparsec.restart", restart),
    workspace.onDidChangeConfiguration(async (event) => {
      if (event.affectsConfiguration("sparsec.server.command")) {
        await restart();
      }
    }),
  );
  await start();
}

export async function deactivate(): Promise<void> {
  await client?.stop();
  client = undefined;
}

async function restart(): Promise<void> {
  await deactivate();
  await start();
}

async function start(): Promise<void> {
  const settings = workspace.getConfiguration(SECTION);
  const server = serverCommand(settings.get("server.command"));
  client = new LanguageClient(SECTION, SECTION, server, {
    documentSelector: [{ language: "sparse" }],
    initializationOptions: initializationOptions((name) => settings.get(name)),
    synchronize: { configurationSection: SECTION },
    middleware: {
      executeCommand: async (command, args, next) => {
        const result = await next(command, args);
        if (command === PICTURE && isPicture(result)) {
          show(result);
        }
        return result;
      },
    },
  });
  try {
    await client.start();
  } catch (error) {
    const install = `pip install "sparsec[lsp]"`;
    void window.showErrorMessage(
      `sparsec: "${server.command}" does not start (${error}). Install it with ${install}, or set sparsec.server.command.`,
    );
  }
}

function show(picture: Picture): void {
  const panel = window.createWebviewPanel("sparsec.picture", picture.title, ViewColumn.Beside, { enableScripts: true });
  panel.webview.html = picture.html;
}
