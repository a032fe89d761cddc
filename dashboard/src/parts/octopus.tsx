// One agent in the middle: who sends to it on the left, whom it sends to on the right.

import { type Pair, type Pairs, pairState } from "../pairs";
import { href } from "../state";
import { count } from "../text";
import { useWidth } from "./width";

/** Arms on each side; the table below the map has the others. */
const MAX_ARMS = 20;
const ROW_PX = 26;
/** Width of a character, about, in CSS pixels. */
const CHAR_PX = 7.4;
/** Wider, arms would be far from each other. */
const MAX_WIDTH_PX = 940;

function ordered(arms: Pair[]): Pair[] {
  // Refusals first, then what is used most; the name last, so that the order stands still.
  return arms.sort((a, b) => b.refused - a.refused || b.passed - a.passed || a.from.localeCompare(b.from) || a.to.localeCompare(b.to));
}

export function Octopus({ pairs, agent }: { pairs: Pairs; agent: string }) {
  const [box, room_px] = useWidth<HTMLDivElement>();
  const width = Math.min(room_px, MAX_WIDTH_PX);
  const senders = ordered(pairs.all.filter((pair) => pair.to === agent && pair.from !== agent));
  const receivers = ordered(pairs.all.filter((pair) => pair.from === agent && pair.to !== agent));
  const rows = Math.max(1, Math.min(MAX_ARMS, Math.max(senders.length, receivers.length)));
  const height = rows * ROW_PX + 16;
  const side = Math.max(90, width * 0.32);
  const middle = height / 2;
  const room = Math.floor(side / CHAR_PX) - 1;
  const centre = Math.min(180, Math.max(70, width - 2 * side - 60));
  const fits = (text: string, chars: number) => text.length > chars ? `${text.slice(0, Math.max(1, chars - 1))}…` : text;

  const arm = (pair: Pair, at: number, all: number, isSender: boolean) => {
    const other = isSender ? pair.from : pair.to;
    const y = middle - (Math.min(all, MAX_ARMS) * ROW_PX) / 2 + at * ROW_PX + ROW_PX / 2;
    const [x1, x2] = isSender ? [side, (width - centre) / 2] : [width - side, (width + centre) / 2];
    const between = (x1 + x2) / 2;
    const kind = pair.refused ? "refused" : pair.passed ? "used" : "unused";
    const many = pair.passed ? Math.min(6, 1 + Math.log10(pair.passed + 1)) : 1;
    const numbers = [pair.passed ? count(pair.passed) : "", pair.refused ? `✕ ${count(pair.refused)}` : ""].filter(Boolean).join(" ");
    return (
      <g key={other} class={`arm ${kind}`}>
        <title>{`${pair.from} to ${pair.to}: ${pairState(pair)}`}</title>
        <path d={`M${x1} ${y}C${between} ${y} ${between} ${middle} ${x2} ${middle}`} stroke-width={pair.passed ? many : 1.4} />
        {pair.refused > 0 && <path class="cross" d={`M${x1 + (isSender ? 6 : -14)} ${y - 4}l8 8m0 -8l-8 8`} stroke-width="2" />}
        <a href={href("map", "", { focus: other })}>
          <text x={isSender ? side - 6 : width - side + 6} y={y + 4} text-anchor={isSender ? "end" : "start"}>
            {fits(other, room - numbers.length - 1)} <tspan class="quiet">{numbers}</tspan>
          </text>
        </a>
      </g>
    );
  };

  const more = (all: number) => all > MAX_ARMS ? `, ${count(all - MAX_ARMS)} more in the table` : "";
  return (
    <div ref={box} class="octopus">
      <p class="quiet">{count(senders.length)} senders on the left{more(senders.length)}; {count(receivers.length)} receivers on the right{more(receivers.length)}. Thick: much; dotted: allowed, never used; dashed with ✕: refused.</p>
      {width > 0 && (
        <svg width={width} height={height} role="group" aria-label={`${agent} in the middle: ${senders.length} senders, ${receivers.length} receivers`}>
          {senders.slice(0, MAX_ARMS).map((pair, at) => arm(pair, at, senders.length, true))}
          {receivers.slice(0, MAX_ARMS).map((pair, at) => arm(pair, at, receivers.length, false))}
          <a href={href("agents", agent)}>
            <rect class="centre" x={(width - centre) / 2} y={middle - 18} width={centre} height="36" rx="6" />
            <text class="centre-name" x={width / 2} y={middle + 5} text-anchor="middle">{fits(agent, Math.floor(centre / CHAR_PX) - 1)}</text>
          </a>
        </svg>
      )}
    </div>
  );
}
