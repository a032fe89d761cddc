// The adjacency matrix: senders down, receivers across. Each state has a shape of its own; one path per state is drawn, so that
// a map of 200 agents is a handful of elements.

import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import { type Pairs, pairState, decisionsText } from "../pairs";
import { useWidth } from "./width";

/** A cell in which a name beside it can be read, in CSS pixels. */
const READABLE_PX = 18;
/** The smallest cell in which shapes can be told apart. */
const SMALLEST_PX = 4;
/** Below this, names are not written beside the cells but above the matrix, for the cell that is meant. */
const NAMES_FROM_PX = 12;
/** Characters of a name that are written beside the matrix. */
const NAME_CHARS = 18;
/** Width of a character, about, and what is left free beside a name, in CSS pixels. */
const CHAR_PX = 6.7;
const NAME_FREE_PX = 14;
/** Beside a few agents cells are as large as this. */
const LARGEST_PX = 28;
/** The corner says which side is which. */
const CORNER_PX = 78;
/** Messages from which a cell is drawn fuller. */
const MANY = [1, 100, 10_000];

export interface Cell { from: number; to: number }

interface Props {
  pairs: Pairs; order: number[]; fit: boolean; chosen: Cell | null; onChoose: (cell: Cell) => void; onOpen: (cell: Cell) => void;
}

/** One path per state, over all cells. */
function draw(pairs: Pairs, order: number[], px: number) {
  const unused: string[] = [];
  const used: string[][] = MANY.map(() => []);
  const gone: string[] = [];
  const crosses: string[] = [];
  const over: string[] = [];
  const gap = px > 8 ? 2 : px > 5 ? 1 : 0.5;
  const inner = px - 2 * gap;
  const square = (x: number, y: number) => `M${x + gap} ${y + gap}h${inner}v${inner}h${-inner}z`;
  // In small cells crosses go beyond their cell: they are what must not be overlooked.
  const out = px < NAMES_FROM_PX ? -1 : gap;
  const arm = px - 2 * out;
  const cross = (x: number, y: number) => `M${x + out} ${y + out}l${arm} ${arm}m0 ${-arm}l${-arm} ${arm}`;
  for (const [row, from] of order.entries()) {
    let run = 0;
    const y = row * px;
    const endRun = (column: number) => {
      if (run) unused.push(`M${(column - run) * px} ${y}h${run * px}v${px}h${-run * px}z`);
      run = 0;
    };
    for (const [column, to] of order.entries()) {
      const pair = pairs.at(from, to);
      const x = column * px;
      if (pair?.may && !pair.passed && !pair.refused) {
        run += 1;
        continue;
      }
      endRun(column);
      if (!pair) continue;
      if (pair.passed && pair.may) used[MANY.findLastIndex((least) => pair.passed >= least)]?.push(square(x, y));
      else if (pair.passed) gone.push(square(x, y));
      if (pair.refused) (pair.passed ? over : crosses).push(cross(x, y));
    }
    endRun(order.length);
  }
  return { unused: unused.join(""), used: used.map((one) => one.join("")), gone: gone.join(""), crosses: crosses.join(""), over: over.join("") };
}

const cut = (name: string) => name.length > NAME_CHARS ? `${name.slice(0, NAME_CHARS - 1)}…` : name;

export function Matrix({ pairs, order, fit, chosen, onChoose, onOpen }: Props) {
  const [box, width] = useWidth<HTMLDivElement>();
  const [hover, setHover] = useState<Cell | null>(null);
  const frame = useRef<HTMLDivElement>(null);
  const size = order.length;
  const longest = order.reduce((most, at) => Math.max(most, pairs.names[at]?.length ?? 0), 0);
  const namePx = Math.max(CORNER_PX, Math.ceil(Math.min(longest, NAME_CHARS) * CHAR_PX) + NAME_FREE_PX);
  const roomy = Math.floor((width - namePx - 4) / Math.max(1, size));
  const px = !fit ? READABLE_PX : roomy >= NAMES_FROM_PX ? Math.min(LARGEST_PX, roomy)
    : Math.max(SMALLEST_PX, Math.min(NAMES_FROM_PX - 1, Math.floor((width - 4) / Math.max(1, size))));
  const withNames = px >= NAMES_FROM_PX;
  const whole = size * px;
  const paths = useMemo(() => width ? draw(pairs, order, px) : null, [pairs, order, px, width > 0]);

  const row = chosen ? order.indexOf(chosen.from) : -1;
  const column = chosen ? order.indexOf(chosen.to) : -1;
  // The chosen cell is kept in sight.
  useEffect(() => {
    const view = frame.current;
    if (!view || row < 0 || column < 0) return;
    const names = withNames ? namePx : 0;
    const keep = (at: number, from: number, room: number) => at < from ? at : at + px > from + room - names ? at + px - room + names : from;
    view.scrollTo({ left: keep(column * px, view.scrollLeft, view.clientWidth), top: keep(row * px, view.scrollTop, view.clientHeight) });
  }, [row, column, px, withNames, namePx]);

  const under = (event: PointerEvent & { currentTarget: SVGSVGElement }): Cell | null => {
    const at = event.currentTarget.getBoundingClientRect();
    const from = order[Math.floor((event.clientY - at.top) / px)];
    const to = order[Math.floor((event.clientX - at.left) / px)];
    return from === undefined || to === undefined ? null : { from, to };
  };

  const move = (event: KeyboardEvent) => {
    const last = size - 1;
    let [r, c] = [Math.max(0, row), Math.max(0, column)];
    const page = Math.max(1, Math.floor(size / 10));
    const nextRefused = (step: 1 | -1) => {
      for (let n = 1; n <= size * size; n += 1) {
        const at = (((r * size + c + step * n) % (size * size)) + size * size) % (size * size);
        const [from, to] = [order[Math.floor(at / size)], order[at % size]];
        if (from !== undefined && to !== undefined && pairs.at(from, to)?.refused) return [Math.floor(at / size), at % size] as const;
      }
      return [r, c] as const;
    };
    switch (event.key) {
      case "ArrowUp": r -= 1; break;
      case "ArrowDown": r += 1; break;
      case "ArrowLeft": c -= 1; break;
      case "ArrowRight": c += 1; break;
      case "Home": c = 0; if (event.ctrlKey) r = 0; break;
      case "End": c = last; if (event.ctrlKey) r = last; break;
      case "PageUp": r -= page; break;
      case "PageDown": r += page; break;
      case "d": [r, c] = nextRefused(1); break;
      case "D": [r, c] = nextRefused(-1); break;
      case "Enter": if (chosen) onOpen(chosen); event.preventDefault(); return;
      default: return;
    }
    event.preventDefault();
    const bound = (at: number) => Math.min(last, Math.max(0, at));
    const [from, to] = [order[bound(r)], order[bound(c)]];
    if (from !== undefined && to !== undefined) onChoose({ from, to });
  };

  const meant = hover ?? chosen;
  const name = (at: number) => pairs.names[at] ?? "";
  const say = (cell: Cell | null) => {
    if (!cell) return "";
    const pair = pairs.at(cell.from, cell.to) ?? { may: false, passed: 0, refused: 0, decisions: {} };
    const decisions = decisionsText(pair.decisions);
    return `${name(cell.from)} to ${name(cell.to)}: ${pairState(pair)}${decisions ? ` (${decisions})` : ""}`;
  };
  const [hoverRow, hoverColumn] = meant ? [order.indexOf(meant.from), order.indexOf(meant.to)] : [-1, -1];
  const label = (at: number, place: number) => place === hoverRow || place === hoverColumn ? <tspan class="meant">{cut(name(at))}</tspan> : cut(name(at));

  return (
    <div ref={box} class="matrix-box">
      <p class="readout">{meant ? say(meant) : "Point at a cell, or move with the arrow keys; d goes to the next refused pair, Enter opens its messages."}</p>
      <p class="hidden" aria-live="polite">{say(chosen)}</p>
      <div ref={frame} class="matrix" role="application" tabIndex={0} onKeyDown={move}
        aria-label={`Matrix of ${size} senders by ${size} receivers. Arrow keys move, d goes to the next refused pair, Enter opens its messages.`}>
        {paths && (
          <div class={withNames ? "matrix-grid" : ""}>
            {withNames && <div class="corner" ref={(corner) => { if (corner) [corner.style.width, corner.style.height] = [`${namePx}px`, `${namePx}px`]; }}><span>sender ↓</span><span>receiver →</span></div>}
            {withNames && (
              <svg class="across" width={whole} height={namePx} aria-hidden="true">
                {order.map((at, place) => (
                  <text key={at} transform={`translate(${place * px + px / 2 + 4} ${namePx - 4}) rotate(-90)`}>{label(at, place === hoverColumn ? place : -2)}</text>
                ))}
              </svg>
            )}
            {withNames && (
              <svg class="down" width={namePx} height={whole} aria-hidden="true">
                {order.map((at, place) => (
                  <text key={at} x={namePx - 6} y={place * px + px / 2 + 4} text-anchor="end">{label(at, place === hoverRow ? place : -2)}</text>
                ))}
              </svg>
            )}
            <svg class="cells" width={whole} height={whole} aria-hidden="true"
              onPointerMove={(event) => setHover(under(event))} onPointerLeave={() => setHover(null)}
              onClick={(event) => { const cell = under(event as never); if (cell) onChoose(cell); }}
              onDblClick={(event) => { const cell = under(event as never); if (cell) onOpen(cell); }}>
              <defs>
                <pattern id="dot" width={px} height={px} patternUnits="userSpaceOnUse">
                  <circle class="dot" cx={px / 2} cy={px / 2} r={Math.max(0.7, px * 0.14)} />
                </pattern>
                <pattern id="lines" width={px} height={px} patternUnits="userSpaceOnUse">
                  <path class="lattice" d={`M${px} 0V${px}H0`} />
                </pattern>
              </defs>
              <rect class="ground" width={whole} height={whole} />
              {px >= 8 && <rect width={whole} height={whole} fill="url(#lines)" />}
              <path class="diagonal" d={order.map((_, at) => `M${at * px} ${at * px}h${px}v${px}h${-px}z`).join("")} />
              {hoverRow >= 0 && <rect class="hair" x="0" y={hoverRow * px} width={whole} height={px} />}
              {hoverColumn >= 0 && <rect class="hair" x={hoverColumn * px} y="0" width={px} height={whole} />}
              <path d={paths.unused} fill="url(#dot)" />
              {paths.used.map((d, level) => <path key={level} class={`used used${level}`} d={d} />)}
              <path class="gone" d={paths.gone} />
              <path class="cross" d={paths.crosses} stroke-width={Math.max(1.5, px / 8)} />
              <path class="cross over" d={paths.over} stroke-width={Math.max(1.5, px / 8)} />
              {row >= 0 && column >= 0 && <rect class="chosen" x={column * px} y={row * px} width={px} height={px} />}
            </svg>
          </div>
        )}
      </div>
    </div>
  );
}

/** What the shapes mean. */
export function Legend() {
  const sign = (inside: preact.JSX.Element) => <svg width="16" height="16" aria-hidden="true" class="cells"><rect class="ground" width="16" height="16" />{inside}</svg>;
  const full = "M2 2h12v12h-12z";
  const cross = "M2 2l12 12m0 -12l-12 12";
  return (
    <ul class="legend" aria-label="Legend">
      <li>{sign(<circle class="dot" cx="8" cy="8" r="2.2" />)} allowed, never used</li>
      <li>{sign(<path class="used used0" d={full} />)}{sign(<path class="used used1" d={full} />)}{sign(<path class="used used2" d={full} />)} used: 1, 100, 10,000 messages or more</li>
      <li>{sign(<path class="cross" d={cross} stroke-width="2" />)} refused</li>
      <li>{sign(<><path class="used used1" d={full} /><path class="cross over" d={cross} stroke-width="2" /></>)} used, and refused</li>
      <li>{sign(<path class="gone" d={full} />)} was used, not allowed now</li>
    </ul>
  );
}
