// Where the library's words go.

/** Takes what the library has to say; `console` is one. */
export interface Logger {
  info(text: string): void;
  warn(text: string, error?: unknown): void;
  error(text: string, error?: unknown): void;
}

/** The same, of a logger that may throw: what is said then goes to stderr. */
export function safe(logger: Logger): Logger {
  const say = (level: keyof Logger, text: string, error: unknown[]): void => {
    try {
      logger[level](text, ...error);
    } catch (failed) {
      console.error(`mas-agent: the logger failed: ${text}`, failed);
    }
  };
  return {
    info: (text) => say("info", text, []),
    warn: (text, ...error) => say("warn", text, error),
    error: (text, ...error) => say("error", text, error),
  };
}

/** Warnings and errors to stderr, nothing else. */
export const STDERR: Logger = {
  info: () => undefined,
  warn: (text, ...error) => console.warn(`mas-agent: ${text}`, ...error),
  error: (text, ...error) => console.error(`mas-agent: ${text}`, ...error),
};
