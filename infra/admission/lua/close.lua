-- Ends a hold whose terminal event is durable: the charge is spent, the rest is free.
--
-- keys: state free taken tombstones
-- args: orgId ownerEpoch requestId chargedMicro
-- returns: closed | fenced reason [sentence]
-- uses: owner books holds settle
-- verbs: close
local fenced, text = open(ownerEpoch, 'h:' .. requestId)
if fenced then return fenced end
local hold = readHold(requestId, text)
holds[requestId] = hold
if ACTS.close[stateOf(hold)] == 'nothing' then return { 'closed' } end
local closed = guarded(function()
  endHold(hold, tonumber(chargedMicro))
end)
if closed then return closed end
hold.state = 'closed'
setHold(requestId, hold)
saveHolds()
return { 'closed' }
