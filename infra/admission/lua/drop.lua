-- Undoes an admission that was certainly not recorded; its id stays refused for TOMBSTONE_MS.
--
-- keys: state free taken tombstones
-- args: orgId ownerEpoch requestId
-- returns: dropped | fenced reason [sentence]
-- uses: time owner books holds settle tombstones
-- verbs: drop
local fenced, text = open(ownerEpoch, 'h:' .. requestId)
if fenced then return fenced end
local now = nowMs()
holds[requestId] = readHold(requestId, text)
forgetTombstones(now)
local hold = holdOf(requestId)
local act = ACTS.drop[stateOf(hold)]
if act == 'nothing' then
  saveHolds()
  return { 'dropped' }
end
if act ~= 'drop' then return closeForFault('a hold that is recorded is not dropped') end
local closed = guarded(function()
  if hold then endHold(hold, 0) end
end)
if closed then return closed end
local forget = now + TOMBSTONE_MS
setHold(requestId, {
  requestId = requestId, state = 'tombstone', writer = hold and hold.writer or '0', keyId = hold and hold.keyId or '-',
  revision = '-1', at = '0', forget = forget, total = 0, text = '',
})
dropped = requestId
if org.forget == 0 then setTotal('forget', forget) end
saveHolds()
return { 'dropped' }
