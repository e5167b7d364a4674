-- Puts an organization's whole state in place, if the epoch known for it is lower and this is one of the servers.
-- A recorded state has open holds only; windows, tombstones and provisional holds begin empty.
--
-- keys: state free taken tombstones
-- args: orgId ownerEpoch servers snapshot
-- returns: adopted | fenced reason
-- uses: owner books holds
local here, isMeant = server(), false
for _, candidate in ipairs(cjson.decode(servers)) do isMeant = isMeant or candidate == here end
if not isMeant then return { 'fenced', 'server' } end
local present = redis.call('HGET', state, 'epoch')
if present and tonumber(present) >= tonumber(ownerEpoch) then return { 'fenced', 'older' } end

local new = cjson.decode(snapshot)
write('epoch', ownerEpoch)
write('server', here)
write('position', new.position)
write('created', new.created and '1' or '0')
write('funded', exact(new.fundedMicro))
write('spent', exact(new.spentMicro))
write('held', exact(new.heldMicro))
write('lots', exact(#new.lots))
write('next', exact(#new.lots))
write('forget', '0')
if new.fault then write('fault', new.fault) end
local filled = {}
for at, lot in ipairs(new.lots) do
  local order = exact(at)
  write('l:' .. lot.lotId, lotText({
    order = order, pot = lot.pot, funded = exact(lot.fundedMicro), available = lot.availableMicro, held = lot.heldMicro,
  }))
  if lot.availableMicro > 0 then
    filled[#filled + 1] = order
    filled[#filled + 1] = lot.lotId
  end
end
for _, key in ipairs(new.keys) do
  write('k:' .. key.keyId, keyText({
    revoked = key.revoked, spent = key.spentMicro, held = key.heldMicro, limitsText = key.limits,
  }))
end
for _, hold in ipairs(new.holds) do
  write('h:' .. hold.requestId, holdText({
    state = hold.state, writer = exact(hold.writerEpoch), keyId = hold.keyId, revision = exact(hold.revision), at = '0',
    forget = 0, total = hold.totalMicro, text = takingsText(hold.accounts),
  }))
end

redis.call('UNLINK', state, free, taken, tombstones)
inChunks('HSET', state, fields)
inChunks('ZADD', free, filled)
return { 'adopted' }
