// Bytes, base64, and the Merkle tree hashing of RFC 6962: the rules of src/audit/merkle.rs.

export type Bytes = Uint8Array<ArrayBuffer>;

export const utf8 = new TextEncoder();

/** Bytes from base64 in its one spelling; null for anything else. */
export function fromBase64(text: string): Bytes | null {
  try {
    const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
    return toBase64(bytes) === text ? bytes : null;
  } catch {
    return null;
  }
}

export function toBase64(bytes: Uint8Array): string {
  let text = "";
  for (const byte of bytes) text += String.fromCharCode(byte);
  return btoa(text);
}

export function hex(bytes: Uint8Array): string {
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

export async function sha256(...parts: Uint8Array[]): Promise<Bytes> {
  const all = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    all.set(part, at);
    at += part.length;
  }
  return new Uint8Array(await crypto.subtle.digest("SHA-256", all));
}

export const leafHash = (bytes: Uint8Array) => sha256(Uint8Array.of(0), bytes);
export const nodeHash = (left: Uint8Array, right: Uint8Array) => sha256(Uint8Array.of(1), left, right);

/** The largest power of two below `size`, which is at least 2. Not by shifts: sizes may be beyond 2^31. */
function split(size: number): number {
  let power = 1;
  while (power * 2 < size) power *= 2;
  return power;
}

/** For each level from the leaf upwards: whether the leaf's side is the right one. */
export function sides(index: number, size: number): boolean[] {
  const found: boolean[] = [];
  let start = 0;
  let end = size;
  while (end - start > 1) {
    const middle = start + split(end - start);
    if (index < middle) {
      found.push(false);
      end = middle;
    } else {
      found.push(true);
      start = middle;
    }
  }
  return found.reverse();
}

/** The root over some leaves' hashes. */
export async function rootOf(leaves: Bytes[]): Promise<Bytes> {
  if (leaves.length === 0) return sha256();
  let nodes = leaves;
  // Pairs level by level, and whatever is left over goes up as it is: the same tree as RFC 6962's definition.
  while (nodes.length > 1) {
    const above: Bytes[] = [];
    for (let at = 0; at < nodes.length; at += 2) {
      const [left, right] = [nodes[at], nodes[at + 1]];
      if (left) above.push(right ? await nodeHash(left, right) : left);
    }
    nodes = above;
  }
  return nodes[0] ?? sha256();
}
