// Numbers, times and sizes as a person reads them.

const NUMBER = new Intl.NumberFormat("en", { maximumFractionDigits: 1 });
const SIZES = ["bytes", "KiB", "MiB", "GiB", "TiB"];

export function count(value: number | null | undefined): string {
  return value === null || value === undefined ? "unknown" : NUMBER.format(value);
}

/** A noun with its number: `1 letter`, `2 letters`. */
export function many(value: number, one: string, more = `${one}s`): string {
  return `${count(value)} ${value === 1 ? one : more}`;
}

/** Something a second: to the tenth where it is little. */
export function rate(value: number | null): string {
  return count(value === null || value < 100 ? value : Math.round(value));
}

export function bytes(value: number | null | undefined): string {
  if (value === null || value === undefined) return "unknown";
  let size = value;
  let unit = 0;
  while (size >= 1024 && unit < SIZES.length - 1) {
    size /= 1024;
    unit += 1;
  }
  return `${NUMBER.format(size)} ${SIZES[unit] ?? ""}`;
}

export function duration(ms: number | null | undefined): string {
  if (ms === null || ms === undefined) return "unknown";
  const s = Math.max(0, ms) / 1_000;
  if (s < 1) return `${Math.round(s * 1_000)} ms`;
  if (s < 10) return `${s.toFixed(1)} s`;
  if (s < 120) return `${Math.round(s)} s`;
  if (s < 7_200) return `${Math.round(s / 60)} min`;
  if (s < 172_800) return `${Math.round(s / 3_600)} h`;
  return `${Math.round(s / 86_400)} days`;
}

export function micros(us: number | null | undefined): string {
  if (us === null || us === undefined) return "none";
  if (us < 1_000) return `${NUMBER.format(us)} µs`;
  return us < 1_000_000 ? `${NUMBER.format(us / 1_000)} ms` : `${NUMBER.format(us / 1_000_000)} s`;
}

const two = (value: number) => String(value).padStart(2, "0");

/** Local time: of today without the date. */
export function time(ms: number, withMillis = false): string {
  const at = new Date(ms);
  const clock = `${two(at.getHours())}:${two(at.getMinutes())}:${two(at.getSeconds())}`;
  const fine = withMillis ? `.${String(at.getMilliseconds()).padStart(3, "0")}` : "";
  const today = at.toDateString() === new Date().toDateString();
  return today ? clock + fine : `${at.getFullYear()}-${two(at.getMonth() + 1)}-${two(at.getDate())} ${clock}${fine}`;
}

export function utc(ms: number): string {
  const at = new Date(ms);
  return Number.isNaN(at.getTime()) ? String(ms) : at.toISOString();
}

/** The beginning of a long id. */
export function short(id: string, length = 8): string {
  return id.length > length + 2 ? `${id.slice(0, length)}…` : id;
}

/** A server's id is a time-ordered UUID: servers started together differ at the end alone. */
export function shortServer(id: string): string {
  return id.slice(-8);
}

/** One word of a command line, quoted where a shell would take it apart. */
export function word(text: string): string {
  return /^[A-Za-z0-9_@%+=:,./-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`;
}

/** `name value` for each of these that has a value. */
export function flags(values: Record<string, string>): string {
  return Object.entries(values).flatMap(([name, value]) =>
    value.split(",").filter(Boolean).map((one) => ` --${name} ${word(one)}`)).join("");
}
