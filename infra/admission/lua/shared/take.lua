-- Setting money aside that is there.

-- Goes through the lots with money in them, oldest first, until visit() answers false. Only while no lot was changed.
local function eachFreeLot(visit)
  local first, count = 0, 1
  while true do
    local ids = redis.call('ZRANGE', free, first, first + count - 1)
    if #ids == 0 then return end
    local names = {}
    for at, lotId in ipairs(ids) do names[at] = 'l:' .. lotId end
    local texts = redis.call('HMGET', state, unpack(names))
    for at, lotId in ipairs(ids) do
      if not lots[lotId] then lots[lotId] = readLot(lotId, texts[at]) end
      if not visit(lots[lotId]) then return end
    end
    if #ids < count then return end
    first, count = first + count, math.min(500, count * 8)
  end
end

-- Takes on the key's budget if it has one, then on the balance, from the oldest lot on.
local function take(key, micro)
  local shares, rest = {}, micro
  if rest > 0 then
    eachFreeLot(function(lot)
      local part = math.min(rest, lot.available)
      lot.available = lot.available - part
      lot.held = lot.held + part
      changeLot(lot)
      rest = rest - part
      shares[#shares + 1] = { lotId = lot.lotId, pot = lot.pot, micro = part }
      return rest > 0
    end)
  end
  rule(rest == 0, 'the lots together hold what the balance says')
  setTotal('held', org.held + micro)
  local balance = { account = orgId .. '/balance', period = 'total', micro = micro, lots = shares }
  if not key.limits.budgetMicro then return { balance } end
  key.held = key.held + micro
  changeKey(key)
  return { { account = key.keyId .. '/budget', period = 'total', micro = micro }, balance }
end
