// The frame around all pages: navigation, whether the server answers, light or dark.

import { signal } from "@preact/signals";
import { type ComponentType, render } from "preact";
import { useEffect, useMemo, useRef } from "preact/hooks";
import type { Fleet, Me } from "./api";
import { useCommands } from "./commands";
import { findings, withFailing } from "./findings";
import { AgentsPage } from "./pages/agents";
import { AuditPage } from "./pages/audit";
import { FleetPage } from "./pages/fleet";
import { LettersPage } from "./pages/letters";
import { MapPage } from "./pages/map";
import { MessagesPage } from "./pages/messages";
import { PerformancePage } from "./pages/performance";
import { PolicyPage } from "./pages/policy";
import { Tag } from "./parts/bits";
import { clock, failing, href, keepBeating, lostSince, place, useAsked } from "./state";
import { count, duration, time } from "./text";
import "./app.css";

/** How often the frame asks how the fleet is, in milliseconds: a lost server is to be seen within 3 s. */
const FLEET_MS = 1_000;

interface Entry { page: string; title: string; show: ComponentType<{ fleet: Fleet | null }> }

const PAGES: Entry[] = [
  { page: "fleet", title: "Fleet", show: FleetPage },
  { page: "map", title: "Map", show: MapPage },
  { page: "agents", title: "Agents", show: AgentsPage },
  { page: "messages", title: "Messages", show: MessagesPage },
  { page: "letters", title: "Dead letters", show: LettersPage },
  { page: "policy", title: "Policy", show: PolicyPage },
  { page: "audit", title: "Audit", show: AuditPage },
  { page: "performance", title: "Performance", show: PerformancePage },
];

type Theme = "auto" | "light" | "dark";
const THEMES: Theme[] = ["auto", "light", "dark"];

function storedTheme(): Theme {
  try {
    return THEMES.find((theme) => theme === localStorage.getItem("mas.theme")) ?? "auto";
  } catch {
    return "auto";
  }
}

export const theme = signal<Theme>(storedTheme());

function setTheme(next: Theme): void {
  theme.value = next;
  document.documentElement.dataset["theme"] = next;
  try {
    localStorage.setItem("mas.theme", next);
  } catch { /* Where nothing may be stored it holds until the page is left. */ }
}

function Lost({ fleet }: { fleet: Fleet | null }) {
  const since = lostSince.value;
  const others = fleet?.servers.filter((one) => !one.this && one.status?.admin_addr) ?? [];
  return (
    <div role="alert">
      {since !== null && (
        <div class="notice bad lost">
          <p><strong>The server does not answer since {time(since)} ({duration(clock.value - since)}).</strong> What stands below is from before.</p>
          <p>
            Look whether mas-server runs on that host, and whether this machine reaches it. The page asks every second and goes on by itself.
            {others.length > 0 && <> Other servers of this fleet had: {others.map((one) => one.status?.admin_addr).join(", ")}.</>}
          </p>
        </div>
      )}
    </div>
  );
}

function App() {
  const main = useRef<HTMLElement>(null);
  const { page } = place.value;
  const asked = useAsked<Fleet>("/api/v1/fleet", FLEET_MS);
  const fleet = useMemo(() => ({ data: withFailing(asked.data, failing.value) }), [asked.data, failing.value]);
  useCommands();
  const me = useAsked<Me>("/api/v1/me", 0);
  const entry = PAGES.find((one) => one.page === page);
  const first = useRef(true);
  useEffect(() => {
    if (first.current) first.current = false;
    else main.current?.querySelector<HTMLElement>("h1")?.focus();
    window.scrollTo(0, 0);
  }, [page, place.value.name]);

  const { bad, warn } = findings(fleet.data);
  const letters = fleet.data?.servers.find((one) => one.this)?.status?.redis.dead_letters ?? 0;
  const lost = lostSince.value !== null;
  const answering = fleet.data?.servers.find((one) => one.this)?.status;
  const badge = (name: string) =>
    name === "fleet" && bad + warn > 0 ? <span class={`badge ${bad ? "bad" : "warn"}`}>{bad + warn}<span class="hidden"> findings</span></span>
      : name === "letters" && letters > 0 ? <span class="badge warn">{count(letters)}<span class="hidden"> letters</span></span> : null;
  const Show = entry?.show;
  return (
    <>
      <a class="skip" href="#main" onClick={(event) => { event.preventDefault(); main.current?.focus(); }}>To the content</a>
      <header class="top">
        <strong class="brand">MAS server</strong>
        <span class="where">{answering ? `${answering.host ?? ""} ${answering.version}` : ""}{me.data && `, seen by ${me.data.name ?? "whoever is on this host"} (${me.data.role})`}</span>
        <span class="state" role="status">
          {lost ? <Tag kind="bad">no answer</Tag> : fleet.data
            ? bad ? <Tag kind="bad">not well</Tag> : warn ? <Tag kind="warn">look at it</Tag> : <Tag kind="good">well</Tag>
            : <Tag kind="none">asking</Tag>}
        </span>
        <label class="theme">
          <span class="hidden">Colours</span>
          <select value={theme.value} onChange={(event) => setTheme(event.currentTarget.value as Theme)}>
            <option value="auto">Auto</option><option value="light">Light</option><option value="dark">Dark</option>
          </select>
        </label>
        <nav aria-label="Pages">
          <ul>
            {PAGES.map((one) => (
              <li key={one.page}><a href={href(one.page)} aria-current={one.page === page ? "page" : undefined}>{one.title}{badge(one.page)}</a></li>
            ))}
          </ul>
        </nav>
      </header>
      <main id="main" ref={main} tabIndex={-1}>
        <Lost fleet={fleet.data} />
        {Show ? <Show fleet={fleet.data} /> : <><h1 tabIndex={-1}>There is no page {page}</h1><p><a href={href("fleet")}>To the fleet</a></p></>}
      </main>
    </>
  );
}

document.documentElement.dataset["theme"] = theme.value;
const root = document.getElementById("app");

function begin() {
  keepBeating();
  if (!root) return;
  root.textContent = "";
  render(<App />, root);
}

// What stands in index.html is painted first: on a busy machine the rest takes a while. Behind a window nothing is painted.
if (document.hidden) begin();
else requestAnimationFrame(() => setTimeout(begin));
