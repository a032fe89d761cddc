// A button for an operator's command: it asks for the reason first, and says where it is on record.

import { useRef, useState } from "preact/hooks";
import { ApiError } from "../api";
import { carryOut, type Command, type Done, may } from "../commands";
import { href } from "../state";
import { count } from "../text";
import { Problem, Tag } from "./bits";

/** The longest reason that is taken, in characters. */
const MAX_REASON_CHARS = 500;
let numbers = 0;

/** The first thing that a command did: the lane's first record says that the lane was opened. */
function recordHref(lane: string): string {
  return href("messages", `${lane}:2`, { proof: `${lane}:2` });
}

interface Props {
  command: Command; label: string;
  /** What happens then, in a sentence. */
  effect: string;
  /** Asks again for what has changed, where that does not come by itself. */
  onDone?: () => void;
}

/** Nothing where whoever looks may not ask for it. */
export function Operate({ command, label, effect, onDone }: Props) {
  const dialog = useRef<HTMLDialogElement>(null);
  const id = useRef("");
  const [reason, setReason] = useState("");
  const [busy, setBusy] = useState(false);
  const [error, setError] = useState<ApiError | null>(null);
  const [done, setDone] = useState<Done | null>(null);
  id.current ||= `operate-${numbers += 1}`;
  if (!may.value.has(command.command)) return null;
  const send = async () => {
    setBusy(true);
    setError(null);
    try {
      setDone((await carryOut(command, reason.trim())).done);
      dialog.current?.close();
      onDone?.();
    } catch (failed) {
      setError(failed instanceof ApiError ? failed : new ApiError(-1, String(failed), null));
    } finally {
      setBusy(false);
    }
  };
  return (
    <span class="operate">
      <button type="button" onClick={() => dialog.current?.showModal()}>{label}</button>
      <span role="status">
        {done && (
          <>
            {" "}<Tag kind={done.failed ? "warn" : "good"}>{count(done.done)} done{done.failed > 0 && `, ${count(done.failed)} stayed`}{done.more && ", there are more"}</Tag>
            {done.receipt && <> <a href={recordHref(done.receipt.lane)}>on record</a></>}
          </>
        )}
      </span>
      <dialog ref={dialog} aria-labelledby={id.current}>
        <h2 id={id.current}>{label}?</h2>
        <p>{effect} It is on record with your name and this reason.</p>
        <Problem error={error} />
        <label>Reason<input value={reason} maxLength={MAX_REASON_CHARS} onInput={(event) => setReason(event.currentTarget.value)} /></label>
        <div class="tools">
          <button type="button" class="main" disabled={busy || !reason.trim()} onClick={() => void send()}>{busy ? "Asking …" : label}</button>
          <button type="button" onClick={() => dialog.current?.close()}>Leave it</button>
        </div>
      </dialog>
    </span>
  );
}
