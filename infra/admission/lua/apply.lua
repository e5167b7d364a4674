-- Carries recorded events in, each once. An item whose position is reached already is passed over; the others must join
-- on without a gap, else the store answers how far it has come.
--
-- keys: state free taken tombstones
-- args: orgId ownerEpoch items
-- returns: applied position | behind position | fenced reason [sentence]
-- uses: owner books holds settle
-- verbs: apply_open apply_extended apply_close
local fenced, position = open(ownerEpoch, 'position')
if fenced then return fenced end

-- Positions are decimal text: they go beyond what a number holds.
local function isReached(reached, at)
  if reached == 'start' then return false end
  if #at ~= #reached then return #at < #reached end
  return at <= reached
end

-- Sets aside exactly what an event says was taken, from exactly its lots.
local function takeAsRecorded(keyId, takings)
  for _, taking in ipairs(takings) do
    if not taking.lots then
      local key = keyOf(keyId)
      rule(key and taking.account == keyId .. '/budget', 'a taking names an account that exists')
      key.held = key.held + taking.micro
      changeKey(key)
    else
      rule(taking.account == orgId .. '/balance', 'a taking names an account that exists')
      setTotal('held', org.held + taking.micro)
      rule(available() >= 0, 'the balance is never overspent')
      local sum = 0
      for _, share in ipairs(taking.lots) do
        local lot = lotOf(share.lotId)
        rule(lot and lot.available >= share.micro, 'a lot is never overspent')
        lot.available = lot.available - share.micro
        lot.held = lot.held + share.micro
        changeLot(lot)
        sum = sum + share.micro
      end
      rule(sum == taking.micro, "a taking's lots add up to it")
    end
  end
end

local function actOf(verb, requestId)
  local hold = holdOf(requestId)
  return hold, ACTS[verb][stateOf(hold)]
end

local APPLY = {}

function APPLY.created()
  write('created', '1')
end

function APPLY.credited(effect)
  rule(not lotOf(effect.lotId), 'a lot is funded once')
  rule(org.funded + effect.micro <= SAFE_MAX, 'the funded total stays a safe integer')
  setTotal('funded', org.funded + effect.micro)
  setTotal('next', org.next + 1)
  setTotal('lots', org.lots + 1)
  local lot = {
    lotId = effect.lotId, order = exact(org.next), pot = effect.pot, funded = exact(effect.micro),
    available = effect.micro, held = 0, wasFree = false,
  }
  lots[effect.lotId] = lot
  changeLot(lot)
end

function APPLY.key_issued(effect)
  rule(not keyOf(effect.keyId), 'a key is issued once')
  local limits = effect.limits
  local key = {
    keyId = effect.keyId, revoked = false, spent = 0, held = 0, limitsText = limits, limits = cjson.decode(limits),
  }
  keys[effect.keyId] = key
  changeKey(key)
end

function APPLY.key_revoked(effect)
  local key = keyOf(effect.keyId)
  rule(key, 'a revoked key was issued')
  key.revoked = true
  changeKey(key)
end

function APPLY.hold_opened(effect)
  local hold, act = actOf('apply_open', effect.requestId)
  if act == 'nothing' then return end
  if act == 'confirm' then
    endProvisional(hold)
    hold.state = 'open'
    hold.revision = exact(effect.revision)
    return setHold(effect.requestId, hold)
  end
  rule(act == 'open', 'a hold is recorded as opened once')
  takeAsRecorded(effect.keyId, effect.accounts)
  setHold(effect.requestId, {
    requestId = effect.requestId, state = 'open', writer = exact(effect.writerEpoch), keyId = effect.keyId,
    revision = exact(effect.revision), at = '0', forget = 0, total = effect.totalMicro,
    text = takingsText(effect.accounts),
  })
end

function APPLY.hold_extended(effect)
  local hold, act = actOf('apply_extended', effect.requestId)
  if act == 'nothing' then return end
  rule(act == 'raise_to_event', 'only an open hold is extended')
  hold.revision = exact(effect.revision)
  if hold.total < effect.totalMicro then
    settle(hold.keyId, takingsOf(hold), 0)
    takeAsRecorded(hold.keyId, effect.accounts)
    hold.text = takingsText(effect.accounts)
    hold.total = effect.totalMicro
  end
  setHold(effect.requestId, hold)
end

function APPLY.hold_closed(effect)
  local hold, act = actOf('apply_close', effect.requestId)
  rule(act == 'settle_and_forget' or act == 'forget', 'only a hold that was opened is closed')
  if act == 'settle_and_forget' then settle(hold.keyId, takingsOf(hold), effect.chargedMicro) end
  setHold(effect.requestId, false)
end

local outcome, before = 'applied', position
local closed = guarded(function()
  for _, item in ipairs(cjson.decode(items)) do
    if not isReached(position, item.position) then
      if item.prev ~= position then
        outcome = 'behind'
        return
      end
      for _, effect in ipairs(item.effects) do APPLY[effect.effect](effect) end
      position = item.position
    end
  end
end)
if closed then return closed end
if position ~= before then write('position', position) end
saveHolds()
return { outcome, position }
