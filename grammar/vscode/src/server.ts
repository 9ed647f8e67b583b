// What the extension tells and asks the language server, without the editor's own API, so that a test can do the same.

/** The program and the arguments that start the server, from the setting `sparsec.server.command`. */
export interface ServerCommand {
  command: string;
  args: string[];
}

/** The command that a setting gives, or the one of an installed sparsec if the setting is none. */
export function serverCommand(configured: unknown): ServerCommand {
  const words =
    Array.isArray(configured) && configured.length > 0 && configured.every((word) => typeof word === "string")
      ? (configured as string[])
      : ["sparsec", "lsp"];
  return { command: words[0], args: words.slice(1) };
}

/** The options that the server reads when it starts. It gives the page of a picture back, and opens none itself. */
export function initializationOptions(get: (name: string) => unknown): Record<string, unknown> {
  return { heads: get("heads"), kvHeads: get("kvHeads"), seqLen: get("seqLen"), showsPictures: true };
}

/** The server's command that draws a pattern. */
export const PICTURE = "sparsec.picture";

/** A picture, as that command gives it. */
export interface Picture {
  title: string;
  html: string;
}

export function isPicture(given: unknown): given is Picture {
  const found = given as Partial<Picture> | null;
  return typeof found?.title === "string" && typeof found?.html === "string";
}
