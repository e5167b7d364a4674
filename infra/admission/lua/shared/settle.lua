-- Ending what was set aside.

local function lotOf(lotId)
  local lot = lots[lotId]
  if lot == nil then
    lot = readLot(lotId, redis.call('HGET', state, 'l:' .. lotId))
    lots[lotId] = lot
  end
  return lot
end

-- The charge eats the listed lots in order, the rest goes back to the same lots.
local function settle(keyId, takings, charged)
  for _, taking in ipairs(takings) do
    rule(charged <= taking.micro, 'a charge is never above its hold')
    if not taking.lots then
      local key = keyOf(keyId)
      rule(key and key.held >= taking.micro, 'a budget gives back what it held')
      key.held = key.held - taking.micro
      key.spent = key.spent + charged
      changeKey(key)
    else
      rule(org.held >= taking.micro, 'the balance gives back what it held')
      setTotal('held', org.held - taking.micro)
      setTotal('spent', org.spent + charged)
      local toEat = charged
      for _, share in ipairs(taking.lots) do
        local lot = lotOf(share.lotId)
        rule(lot and lot.held >= share.micro, 'a lot gives back what it held')
        local eaten = math.min(toEat, share.micro)
        toEat = toEat - eaten
        lot.held = lot.held - share.micro
        lot.available = lot.available + share.micro - eaten
        changeLot(lot)
        if lot.held == 0 and lot.available == 0 then
          lots[lot.lotId] = false
          lot.isGone = true
          setTotal('lots', org.lots - 1)
        end
      end
      rule(toEat == 0, 'a charge is covered by its lots')
    end
  end
end

-- Ends a hold in the accounts.
local function endHold(hold, charged)
  settle(hold.keyId, takingsOf(hold), charged)
  endProvisional(hold)
  hold.text = ''
  hold.total = 0
end
