-- Raises a hold towards a total, as far as the money of all its accounts goes, and the list of its lots. A total at or
-- below the present one changes nothing.
--
-- keys: state free taken tombstones
-- args: orgId ownerEpoch requestId totalMicro
-- returns: raised totalMicro takings | gone | fenced reason [sentence]
-- uses: owner books take holds
-- verbs: extend
local fenced, text = open(ownerEpoch, 'h:' .. requestId)
if fenced then return fenced end
local hold = readHold(requestId, text)
holds[requestId] = hold
local act = ACTS.extend[stateOf(hold)]
if act == 'gone' then return { 'gone' } end
if act ~= 'raise' then return closeForFault('a hold that has ended is not extended') end

-- What the oldest `count` of the lots that have money have together, counted as far as `enough`.
local function availableInLots(count, enough)
  local micro, left = 0, count
  if left <= 0 then return 0 end
  eachFreeLot(function(lot)
    micro = micro + lot.available
    left = left - 1
    return left > 0 and micro < enough
  end)
  return micro
end

local function sharesOf(takings)
  local shares = 0
  for _, taking in ipairs(takings) do shares = shares + (taking.lots and #taking.lots or 0) end
  return shares
end

-- What was added stands behind what was there, lot by lot: an end of the hold as it was recorded before must eat the
-- lots as if it had never been raised.
local function join(before, added)
  for _, taking in ipairs(before) do
    local more
    for _, candidate in ipairs(added) do
      if not more and candidate.account == taking.account then more = candidate end
    end
    rule(more, 'a hold is raised on all of its accounts')
    taking.micro = taking.micro + more.micro
    if taking.lots and more.lots then
      for _, share in ipairs(more.lots) do
        local last = taking.lots[#taking.lots]
        if last and last.lotId == share.lotId then
          last.micro = last.micro + share.micro
        else
          taking.lots[#taking.lots + 1] = share
        end
      end
    end
  end
  return before
end

local closed = guarded(function()
  local key = keyOf(hold.keyId)
  rule(key, "a hold's key exists")
  local takings = takingsOf(hold)
  local more = math.min(tonumber(totalMicro) - hold.total, available(), budgetAvailable(key))
  more = math.min(more, availableInLots(SHARES_MAX - sharesOf(takings), more))
  if more <= 0 then return end
  hold.text = takingsText(join(takings, take(key, more)))
  hold.total = hold.total + more
  setHold(requestId, hold)
end)
if closed then return closed end
saveHolds()
return { 'raised', exact(hold.total), hold.text }
