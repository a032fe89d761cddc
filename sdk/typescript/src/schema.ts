// Schemas: whatever follows https://standardschema.dev, such as those of zod, valibot and arktype.

import { PayloadError } from "./errors.js";

/** The interface of Standard Schema, as far as it is used here. */
export interface StandardSchema<Input = unknown, Output = Input> {
  readonly "~standard": {
    readonly version: 1;
    readonly vendor: string;
    readonly validate: (value: unknown) => Validated<Output> | Promise<Validated<Output>>;
    readonly types?: { readonly input: Input; readonly output: Output } | undefined;
  };
}

/** What a schema says of a value. */
export type Validated<Output> =
  | { readonly value: Output; readonly issues?: undefined }
  | { readonly issues: readonly Issue[] };

/** One thing that is wrong with a value. */
export interface Issue {
  readonly message: string;
  readonly path?: readonly (PropertyKey | { readonly key: PropertyKey })[] | undefined;
}

/** The type that a schema makes. */
export type OutputOf<S extends StandardSchema> = NonNullable<S["~standard"]["types"]>["output"];

/** Fields that an error names at most. */
const MAX_FIELDS = 16;

/** The value as the schema makes it; throws `PayloadError`. */
export async function validate<S extends StandardSchema>(
  schema: S,
  value: unknown,
  what: string,
  messageId?: string,
): Promise<OutputOf<S>> {
  const validated = await schema["~standard"].validate(value);
  if (validated.issues === undefined) return validated.value;
  const fields = [...new Set(validated.issues.map(pointer))].slice(0, MAX_FIELDS);
  const named = fields.map((field) => field || "the whole").join(", ");
  throw new PayloadError(`${what} is not what the schema takes: ${named}`, fields, validated.issues, messageId);
}

/** The names on the way to what is wrong. */
export function pathOf(issue: Issue): string[] {
  return (issue.path ?? []).map((step) => String(typeof step === "object" ? step.key : step));
}

function pointer(issue: Issue): string {
  return pathOf(issue)
    .map((name) => `/${name.replaceAll("~", "~0").replaceAll("/", "~1")}`)
    .join("");
}
