-- The organization's lots and keys, and the rules of the books. Everything is read and checked first; what changes is kept
-- here and written by save(), in which nothing can fail any more.
--
-- Fields of the hash `state`: l:<lotId> = order pot funded available held; k:<keyId> = revoked spent held limits.
-- `free` has the lots with money in them, by their order.
local lots, changedLots = {}, {}
local keys, changedKeys = {}, {}
-- Further fields to write (field, value, field, value …) and to delete.
local fields, goneFields = {}, {}
-- Provisional holds that begin (order, member …) and that are provisional no more (members).
local begun, ended = {}, {}
-- How many tombstones are over, oldest first, and the request id of a new one.
local forgotten, dropped = 0, nil

local function rule(holds, sentence)
  if not holds then error({ rule = sentence }, 0) end
end

-- A rule of the books did not hold: no money moves here until a person has looked. Nothing else is written.
local function closeForFault(sentence)
  redis.call('HSET', state, 'fault', sentence)
  return { 'fenced', 'fault', sentence }
end

-- Runs a change; answers nil, or that the organization is closed because of it.
local function guarded(change)
  local fine, raised = pcall(change)
  if fine then return nil end
  if type(raised) ~= 'table' or not raised.rule then error(raised, 0) end
  return closeForFault(raised.rule)
end

local function readLot(lotId, text)
  if not text then return false end
  local order, pot, funded, left, held = string.match(text, '^(%d+) (%S+) (%d+) (%d+) (%d+)$')
  return {
    lotId = lotId, order = order, pot = pot, funded = funded,
    available = tonumber(left), held = tonumber(held), wasFree = left ~= '0',
  }
end

local function changeLot(lot)
  if lot.isChanged then return end
  lot.isChanged = true
  changedLots[#changedLots + 1] = lot
end

local function readKey(keyId, text)
  if not text then return false end
  local revoked, spent, held, limits = string.match(text, '^(%d) (%d+) (%d+) (.*)$')
  return {
    keyId = keyId, revoked = revoked == '1', spent = tonumber(spent), held = tonumber(held),
    limitsText = limits, limits = cjson.decode(limits),
  }
end

local function keyOf(keyId)
  local key = keys[keyId]
  if key == nil then
    key = readKey(keyId, redis.call('HGET', state, 'k:' .. keyId))
    keys[keyId] = key
  end
  return key
end

local function changeKey(key)
  if key.isChanged then return end
  key.isChanged = true
  changedKeys[#changedKeys + 1] = key
end

local function budgetAvailable(key)
  return math.max(0, (key.limits.budgetMicro or math.huge) - key.spent - key.held)
end

local function write(field, value)
  fields[#fields + 1] = field
  fields[#fields + 1] = value
end

local function lotText(lot)
  return lot.order .. ' ' .. lot.pot .. ' ' .. lot.funded .. ' ' .. exact(lot.available) .. ' ' .. exact(lot.held)
end

local function keyText(key)
  return (key.revoked and '1 ' or '0 ') .. exact(key.spent) .. ' ' .. exact(key.held) .. ' ' .. key.limitsText
end

-- Commands take a bounded number of arguments from Lua's stack.
local function inChunks(command, key, values)
  for first = 1, #values, 1000 do
    redis.call(command, key, unpack(values, first, math.min(first + 999, #values)))
  end
end

local function save()
  local filled, emptied = {}, {}
  for _, lot in ipairs(changedLots) do
    if lot.isGone then
      goneFields[#goneFields + 1] = 'l:' .. lot.lotId
    else
      write('l:' .. lot.lotId, lotText(lot))
    end
    if lot.available > 0 and not lot.wasFree then
      filled[#filled + 1] = lot.order
      filled[#filled + 1] = lot.lotId
    elseif lot.available == 0 and lot.wasFree then
      emptied[#emptied + 1] = lot.lotId
    end
  end
  for _, key in ipairs(changedKeys) do write('k:' .. key.keyId, keyText(key)) end
  for name in pairs(changedTotals) do write(name, exact(org[name])) end
  -- What goes, goes first: a lot that was used up and funded again in one script is there afterwards.
  inChunks('HDEL', state, goneFields)
  inChunks('ZREM', free, emptied)
  inChunks('ZREM', taken, ended)
  if forgotten > 0 then redis.call('LTRIM', tombstones, forgotten, -1) end
  inChunks('HSET', state, fields)
  inChunks('ZADD', free, filled)
  inChunks('ZADD', taken, begun)
  if dropped then redis.call('RPUSH', tombstones, dropped) end
end
