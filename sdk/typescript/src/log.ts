// Where the library's words go.

/** Takes what the library has to say; `console` is one. */
export interface Logger {
  info(text: string): void;
  warn(text: string, error?: unknown): void;
  error(text: string, error?: unknown): void;
}

/** Warnings and errors to stderr, nothing else. */
export const STDERR: Logger = {
  info: () => undefined,
  warn: (text, ...error) => console.warn(`mas-agent: ${text}`, ...error),
  error: (text, ...error) => console.error(`mas-agent: ${text}`, ...error),
};
