//! Commands that Redis carries out although its memory is full: as a whole, in one script.
//!
//! Above its `maxmemory` Redis queues nothing for a transaction, not even what would free memory. A script with the
//! flag `allow-oom` is still run (since Redis 7; older ones refuse it, and what is due waits for room). It is for
//! what lets consumers drain their inboxes: sessions, deliveries, acknowledgements, and their records.
//!
//! WATCH guards no script, so the script looks at the server's fence and at the owners of instances itself.

use super::claim_script::FUNCTION;
use super::connection::{Batch, Mark};
use super::keys;
use super::owners::{Owner, owned_by};
use crate::ids::{AgentId, InstanceId, ServerId};

/// `KEYS`: the server's fence. `ARGV`: what a fence says that is shut; the commands as they go out; then the owners on
/// which they depend: key, instance, entry (empty: no server), and so on. Answers like EXEC: the commands' answers, or
/// nothing where a guard does not hold. A claim, which is a script itself, is carried out by the same function.
const BODY: &str = r"
if redis.call('GET', KEYS[1]) == ARGV[1] then return false end
for i = 3, #ARGV, 3 do
  local owner = redis.call('HGET', ARGV[i], ARGV[i + 1])
  if not owner or string.sub(owner, 1, 2) ~= 's:' then owner = '' end
  if owner ~= ARGV[i + 2] then return false end
end
local text, at = ARGV[2], 1
local function number()
  local stop = string.find(text, '\r\n', at, true)
  local found = tonumber(string.sub(text, at + 1, stop - 1))
  at = stop + 2
  return found
end
local function slice(words, from, to)
  local found = {}
  for i = from, to do found[#found + 1] = words[i] end
  return found
end
local function run(words)
  if words[1] ~= 'EVAL' then return redis.call(unpack(words)) end
  local last = 3 + tonumber(words[3])
  return claim(slice(words, 4, last), slice(words, last + 1, #words))
end
local answers = {}
while at <= #text do
  local words = {}
  for word = 1, number() do
    local length = number()
    words[word] = string.sub(text, at, at + length - 1)
    at = at + length + 2
  end
  local done, answer = pcall(run, words)
  if not done and type(answer) ~= 'table' then
    local text = tostring(answer)
    answer = {err = string.find(text, '^%u+ ') and text or 'ERR ' .. text}
  end
  answers[#answers + 1] = answer or false
end
return answers
";

/// The owner of an instance, on which a decision depends.
#[derive(Debug, Clone)]
pub struct OwnerGuard {
    /// The agent.
    pub agent: AgentId,
    /// The instance.
    pub instance: InstanceId,
    /// Its owner.
    pub owner: Owner,
}

/// Puts the commands behind `mark` into a script; the place of its answer.
pub(super) fn wrap(batch: &mut Batch, mark: Mark, server: &ServerId, guards: &[OwnerGuard]) -> usize {
    let commands = batch.take_from(mark);
    let place = batch.command("EVAL");
    let _ = batch.arg(format!("#!lua flags=allow-oom\n{FUNCTION}{BODY}"));
    let _ = batch.arg(1).arg(keys::fence(server)).arg(keys::FENCED).arg(commands);
    for OwnerGuard { agent, instance, owner } in guards {
        let entry = match owner {
            Owner::Server(server) => owned_by(server),
            Owner::Nobody => String::new(),
        };
        let _ = batch.arg(keys::instances(agent)).arg(instance.as_str()).arg(entry);
    }
    // What was watched for it guards nothing else.
    let _ = batch.command("UNWATCH");
    place
}
