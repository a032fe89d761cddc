// Fields that filter by what stands in the address.

import { useEffect, useState } from "preact/hooks";
import { param, setParams } from "../state";

/** A text goes into the address, and to the server, once nothing was typed for so long. */
const SETTLE_MS = 350;

interface Text { name: string; label: string; list?: string; wide?: boolean; placeholder?: string }

export function TextFilter({ name, label, list, wide, placeholder }: Text) {
  const stands = param(name);
  const [typed, setTyped] = useState(stands);
  useEffect(() => setTyped(stands), [stands]);
  useEffect(() => {
    if (typed === stands) return;
    const timer = setTimeout(() => setParams({ [name]: typed.trim(), cursor: "" }), SETTLE_MS);
    return () => clearTimeout(timer);
  }, [typed]);
  return (
    <label class={wide ? "wide" : ""}>{label}
      <input type="search" value={typed} list={list} placeholder={placeholder} autocomplete="off" spellcheck={false}
        onInput={(event) => setTyped(event.currentTarget.value)} />
    </label>
  );
}

interface Choice { name: string; label: string; choices: readonly (string | [string, string])[]; any?: string | undefined; standard?: string }

export function ChoiceFilter({ name, label, choices, any, standard = "" }: Choice) {
  return (
    <label>{label}
      <select value={param(name, standard)} onChange={(event) => setParams({ [name]: event.currentTarget.value === standard ? "" : event.currentTarget.value, cursor: "" })}>
        {any !== undefined && <option value="">{any}</option>}
        {choices.map((choice) => {
          const [value, text] = typeof choice === "string" ? [choice, choice] : choice;
          return <option key={value} value={value}>{text}</option>;
        })}
      </select>
    </label>
  );
}
