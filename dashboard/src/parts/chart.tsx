// Lines over time, in SVG: the style sheet colours them in every scheme, and what they show is said in words, too.
//
// Own code because a chart library is as large as all of the rest (uPlot 1.6.32: 22 of the 60 KB that the dashboard may have), and
// what is needed of it is this.

import { signal } from "@preact/signals";
import { useMemo } from "preact/hooks";
import { time } from "../text";
import { useWidth } from "./width";

const HEIGHT_PX = 174;
const LEFT_PX = 66;
const RIGHT_PX = 8;
const TOP_PX = 8;
const BOTTOM_PX = 26;
/** About so many lines across. */
const LINES = 4;
/** Between two times on the axis, at the least. */
const TIME_PX = 90;
const TIME_STEPS_S = [5, 10, 30, 60, 120, 300, 600];
/** Lines that are told apart: the style sheet has so many colours, each with dashes of its own. */
const STYLES = 6;

export interface Series { name: string; values: (number | null)[] }

interface Props {
  title: string; now: string; times: number[]; series: Series[]; text: (value: number) => string;
  /** Logarithmic, by powers of ten, for what spans decades. */
  log?: boolean;
  /** Sizes: round numbers are those of KiB and MiB. */
  binary?: boolean;
}

/** The time that is pointed at, in all charts alike; null: the newest. */
const pointed = signal<number | null>(null);

/** Round numbers from 0 to at least `most`, two at the least: a scale of one number has no height. */
function rounded(most: number, binary: boolean): number[] {
  const raw = (most > 0 ? most : 1) / LINES;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = binary ? 2 ** Math.ceil(Math.log2(raw)) : power * ([1, 2, 5, 10].find((factor) => factor * power >= raw) ?? 10);
  return Array.from({ length: Math.max(2, Math.ceil(most / step) + 1) }, (_, at) => at * step);
}

function powers(least: number, most: number): number[] {
  const first = Math.floor(Math.log10(least));
  return Array.from({ length: Math.max(2, Math.ceil(Math.log10(most)) - first + 1) }, (_, at) => 10 ** (first + at));
}

export function Chart({ title, now, times, series, text, log = false, binary = false }: Props) {
  const [box, width] = useWidth<HTMLDivElement>();
  const [first = 0, last = first + 1] = [times[0], times.at(-1)];
  const inner = Math.max(1, width - LEFT_PX - RIGHT_PX);
  const high = HEIGHT_PX - TOP_PX - BOTTOM_PX;
  const x = (ms: number) => LEFT_PX + ((ms - first) / Math.max(1, last - first)) * inner;
  const { ticks, y, paths } = useMemo(() => {
    let [least, most] = [Infinity, 0];
    for (const { values } of series) {
      for (const value of values) {
        if (value === null || (log && value <= 0)) continue;
        least = Math.min(least, value);
        most = Math.max(most, value);
      }
    }
    const ticks = log ? powers(least === Infinity ? 1 : least, Math.max(1, most)) : rounded(most, binary);
    const [from, to] = [ticks[0] ?? 0, ticks.at(-1) ?? 1];
    const y = (value: number) => {
      const share = log ? Math.log10(Math.max(value, from) / from) / Math.log10(to / from) : (value - from) / (to - from);
      return TOP_PX + high * (1 - share);
    };
    const paths = series.map(({ values }) => {
      let path = "";
      let isOpen = false;
      for (const [at, value] of values.entries()) {
        // A gap in the numbers is a gap in the line.
        if (value === null) isOpen = false;
        else {
          path += `${isOpen ? "L" : "M"}${x(times[at] ?? first).toFixed(1)} ${y(value).toFixed(1)}`;
          // A single point is seen, too.
          if (!isOpen) path += "h.5";
          isOpen = true;
        }
      }
      return path;
    });
    return { ticks, y, paths };
  }, [times, series, width, log, binary]);
  const seconds = (last - first) / 1_000;
  const step = TIME_STEPS_S.find((one) => (seconds / one) * TIME_PX <= inner) ?? 900;
  const marks: number[] = [];
  for (let ms = Math.ceil(first / (step * 1_000)) * step * 1_000; ms <= last; ms += step * 1_000) marks.push(ms);

  const wanted = pointed.value;
  const at = wanted === null ? times.length - 1 : times.findLastIndex((ms) => ms <= wanted);
  const here = times[at];
  const point = (event: PointerEvent & { currentTarget: SVGSVGElement }) => {
    const from = event.clientX - event.currentTarget.getBoundingClientRect().left - LEFT_PX;
    pointed.value = first + Math.min(1, Math.max(0, from / inner)) * (last - first);
  };
  const keys = (event: KeyboardEvent) => {
    const steps: Record<string, number> = { ArrowLeft: -1, ArrowRight: 1, PageUp: -30, PageDown: 30 };
    const by = steps[event.key];
    if (by === undefined && event.key !== "End" && event.key !== "Escape") return;
    event.preventDefault();
    pointed.value = by === undefined ? null : times[Math.min(times.length - 1, Math.max(0, at + by))] ?? null;
  };
  const value = (one: Series) => {
    const found = one.values[at];
    return found === null || found === undefined ? "–" : text(found);
  };
  return (
    <section class="chart" aria-label={title}>
      <h2>{title}</h2>
      <p class="now">{now}</p>
      <div ref={box} class="lines" role="group" tabIndex={0} onKeyDown={keys} aria-label={`${title}: arrow keys move through time, Escape goes back to the newest`}>
        {width > 0 && (
          <svg width={width} height={HEIGHT_PX} aria-hidden="true" onPointerMove={point as never} onPointerLeave={() => { pointed.value = null; }}>
            {ticks.map((tick) => (
              <g key={tick}><path class="grid" d={`M${LEFT_PX} ${y(tick)}h${inner}`} /><text x={LEFT_PX - 6} y={y(tick) + 4} text-anchor="end">{text(tick)}</text></g>
            ))}
            {marks.map((ms) => (
              <g key={ms}><path class="grid" d={`M${x(ms)} ${TOP_PX}v${high}`} />
                <text x={Math.min(width - 26, x(ms))} y={HEIGHT_PX - 6} text-anchor="middle">{time(ms)}</text></g>
            ))}
            {paths.map((d, line) => <path key={line} class={`line line${line % STYLES}`} d={d} />)}
            {wanted !== null && here !== undefined && <path class="pointer" d={`M${x(here)} ${TOP_PX}v${high}`} />}
          </svg>
        )}
      </div>
      <p class="keys" aria-live={wanted === null ? "off" : "polite"}>
        <span class="quiet">{here === undefined ? "" : time(here)}</span>
        {series.map((one, line) => (
          <span key={one.name}><svg width="26" height="10" aria-hidden="true"><path class={`line line${line % STYLES}`} d="M1 5h24" /></svg> {one.name} <strong>{value(one)}</strong></span>
        ))}
      </p>
    </section>
  );
}
