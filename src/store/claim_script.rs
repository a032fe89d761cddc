//! The text of the script that claims pending entries.

macro_rules! function {
    () => {
        r"
local function claim(keys, args)
  local owner = redis.call('HGET', keys[2], args[4])
  local elsewhere = owner and string.sub(owner, 1, 2) == 's:' and owner ~= args[5]
  local found = {}
  for i = 7, #args, 3 do
    local line = redis.call('XPENDING', keys[1], args[1], args[i], args[i], 1)[1]
    if elsewhere or not line or line[2] ~= args[3] then
      found[#found + 1] = {0}
    else
      local count, seen = tonumber(args[i + 1]), tonumber(args[i + 2])
      if args[6] == '' and line[4] > seen then count = count + line[4] - seen end
      local command = {'XCLAIM', keys[1], args[1], args[2], 0, args[i], 'RETRYCOUNT', count}
      if args[6] ~= '' then command[#command + 1] = args[6] end
      local got = redis.call(unpack(command))[1]
      if got then
        found[#found + 1] = {1, got, count}
      else
        redis.call('XACK', keys[1], args[1], args[i])
        found[#found + 1] = {2}
      end
    end
  end
  return found
end
"
    };
}

/// `KEYS`: the stream; the agent's instances. `ARGV`: group, new consumer, expected holder's consumer, the holder's
/// instance, the claiming server's owner entry, `JUSTID` or an empty string, then an entry, its delivery count and the
/// count that the server saw last, and so on. What another server delivered since is added. Answers for each entry: 1,
/// what XCLAIM gave and the count; 0 where it is not pending for that holder; 2 where its message is gone (it is
/// acknowledged then: nobody can handle it).
pub(super) const SCRIPT: &str = concat!(function!(), "return claim(KEYS, ARGV)\n");

/// The script's work as a Lua function of its `KEYS` and `ARGV`.
pub(super) const FUNCTION: &str = function!();
