-- The writers of the provisional holds that are older than any append takes.
--
-- keys: state free taken tombstones
-- args:
-- returns: writerEpoch …
-- uses: time old
local now = nowMs()
local writers, known = {}, {}
for _, member in ipairs(redis.call('ZRANGE', taken, 0, -1)) do
  local writer = string.match(member, '^%S+ (%S+) ')
  if not known[writer] and isOld(member, now) then
    known[writer] = true
    writers[#writers + 1] = writer
  end
end
return writers
