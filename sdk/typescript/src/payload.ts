// Payloads and state fields: what goes into JSON and comes out of it.

import { SetupError } from "./errors.js";
import { pathOf, validate, type OutputOf, type StandardSchema } from "./schema.js";

/** A value as the text of JSON. What JSON would drop or turn into null silently (NaN, Infinity) is an error. */
export function toJson(value: unknown, what: string): string {
  let text: string | undefined;
  try {
    text = JSON.stringify(value);
    // NaN and its like come out as null; looking at each value costs more than the rest.
    if (text?.includes("null")) text = JSON.stringify(value, finite);
  } catch (error) {
    throw new SetupError(`${what} cannot be written as JSON: ${error instanceof Error ? error.message : String(error)}`, { cause: error });
  }
  if (text === undefined) throw new SetupError(`${what} cannot be written as JSON: it is ${typeof value}`);
  return text;
}

/** The payload as the JSON object that is sent; undefined is the empty one. */
export function payloadJson(data: object | undefined): string {
  if (data === undefined) return "{}";
  const text = toJson(data, "the payload");
  if (!text.startsWith("{")) throw new SetupError("the payload is no object");
  return text;
}

/** State fields: a text stays as it is, everything else becomes JSON. */
export function toFields(updates: object): Map<string, string> {
  const fields = new Map<string, string>();
  for (const [name, value] of Object.entries(updates) as [string, unknown][]) {
    if (value !== undefined) fields.set(name, typeof value === "string" ? value : toJson(value, `field ${name}`));
  }
  return fields;
}

/** The schema's value of state fields. A text may be meant as it is or as JSON: where the schema refuses a field read the
 * one way, it is read the other way. */
export async function fromFields<S extends StandardSchema>(
  schema: S,
  fields: Readonly<Record<string, string>>,
): Promise<OutputOf<S>> {
  // Not by assignment, to which a field named __proto__ is no field.
  const values = (texts: ReadonlySet<string | undefined>): Record<string, unknown> =>
    Object.fromEntries(Object.entries(fields).map(([name, text]) => [name, texts.has(name) ? text : asJson(text)]));
  const first = await schema["~standard"].validate(values(new Set()));
  if (first.issues === undefined) return first.value;
  const refused = new Set(first.issues.map((issue) => pathOf(issue)[0]));
  return validate(schema, values(refused), "the state");
}

/** What a text means as JSON; the text itself where it means none, a text, or an integer that a number would change. */
function asJson(text: string): unknown {
  try {
    const value: unknown = JSON.parse(text);
    if (typeof value === "number" && !Number.isSafeInteger(value) && /^-?\d+$/.test(text) && String(value) !== text) return text;
    return typeof value === "string" ? text : value;
  } catch {
    return text;
  }
}

function finite(_name: string, value: unknown): unknown {
  if (typeof value === "number" && !Number.isFinite(value)) throw new TypeError(`${value} is no number of JSON`);
  return value;
}
