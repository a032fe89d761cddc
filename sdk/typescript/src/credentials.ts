// The PEM files of mutual TLS: read anew for every connection, so that renewed ones are taken up.

import { createPrivateKey, X509Certificate, type KeyObject } from "node:crypto";
import { readFile } from "node:fs/promises";

import { SetupError } from "./errors.js";

/** Paths of the PEM files of mutual TLS. The agent's id is in its certificate. */
export interface Credentials {
  readonly ca: string;
  readonly cert: string;
  readonly key: string;
}

/** What the files hold. */
export interface Loaded {
  readonly ca: Buffer;
  readonly cert: Buffer;
  readonly key: Buffer;
}

/** Reads and checks the files; throws a `SetupError` that names all that is wrong. */
export async function load(credentials: Credentials): Promise<Loaded> {
  const wrong: string[] = [];
  const [ca, cert, key] = await Promise.all(
    [credentials.ca, credentials.cert, credentials.key].map((path) =>
      readFile(path).catch((error: NodeJS.ErrnoException) => {
        wrong.push(`${path}: ${error.code === "ENOENT" ? "there is no such file" : error.message}`);
        return undefined;
      }),
    ),
  );
  if (ca !== undefined) certificate(credentials.ca, ca, wrong);
  const own = cert === undefined ? undefined : certificate(credentials.cert, cert, wrong);
  const secret = key === undefined ? undefined : privateKey(credentials.key, key, wrong);
  if (own !== undefined && secret !== undefined && !own.checkPrivateKey(secret)) {
    wrong.push(`${credentials.key}: is not the key of ${credentials.cert}`);
  }
  if (wrong.length > 0 || !ca || !cert || !key) throw new SetupError(wrong.join("; "));
  return { ca, cert, key };
}

function certificate(path: string, pem: Buffer, wrong: string[]): X509Certificate | undefined {
  try {
    if (pem.includes("-----BEGIN CERTIFICATE-----")) return new X509Certificate(pem);
  } catch {
    // Said below: what OpenSSL says of it helps nobody.
  }
  wrong.push(`${path}: is not a certificate in PEM`);
  return undefined;
}

function privateKey(path: string, pem: Buffer, wrong: string[]): KeyObject | undefined {
  try {
    return createPrivateKey(pem);
  } catch {
    wrong.push(`${path}: is not a private key in PEM`);
    return undefined;
  }
}
