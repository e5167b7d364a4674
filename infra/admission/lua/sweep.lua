-- Frees what a dead writer took and never recorded. Its sealed journal must have been applied before.
--
-- keys: state free taken tombstones
-- args: orgId ownerEpoch writerEpoch
-- returns: swept | fenced reason [sentence]
-- uses: owner books holds settle
-- verbs: sweep
local fenced = open(ownerEpoch)
if fenced then return fenced end
local closed = guarded(function()
  for _, member in ipairs(redis.call('ZRANGE', taken, 0, -1)) do
    local writer, requestId = string.match(member, '^%S+ (%S+) (%S+)$')
    local hold = writer == writerEpoch and holdOf(requestId)
    if hold and ACTS.sweep[hold.state] == 'give_back_and_forget' then
      endHold(hold, 0)
      setHold(requestId, false)
    end
  end
end)
if closed then return closed end
saveHolds()
return { 'swept' }
