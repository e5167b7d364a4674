-- Decides one request: refuses it for the first reason that stands against it, or holds the money on all of its accounts
-- at once and counts it against the rate limit. A refusal takes and counts nothing.
--
-- keys: state free taken tombstones
-- args: orgId ownerEpoch requestId writerEpoch keyId holdMicro
-- returns: admitted old atMs takings [limit remaining freeInMs resetMs]
--        | refused refusal old funded spent held budget budgetSpent budgetHeld [limit remaining freeInMs resetMs]
--        | fenced reason [sentence]
-- uses: time owner books take holds tombstones old rate
-- verbs: admit
local fenced, holdText, keyText, windowText = open(ownerEpoch, 'h:' .. requestId, 'k:' .. keyId, 'r:' .. keyId)
if fenced then return fenced end
local now = nowMs()
holds[requestId] = readHold(requestId, holdText)
keys[keyId] = readKey(keyId, keyText)
forgetTombstones(now)
local old = meetsOld(now)
local key, micro, window = keyOf(keyId), tonumber(holdMicro), nil

-- The order of these is the order of the refusals.
local function firstRefusal()
  if ACTS.admit[stateOf(holdOf(requestId))] ~= 'admit' then return 'request_known' end
  if not key then return 'key_unknown' end
  local limits = key.limits
  if key.revoked then return 'key_revoked' end
  if limits.expiresAtMs and limits.expiresAtMs <= now then return 'key_expired' end
  if limits.rpm then
    window = openWindow(keyId, windowText, now)
    if window.total >= limits.rpm then return 'rate_limit_exceeded' end
  end
  if budgetAvailable(key) < micro then return 'key_budget_exceeded' end
  if org.funded - org.spent < micro then return 'insufficient_balance' end
  if available() < micro then return 'balance_held' end
  return nil
end

local function withRate(answer)
  if not window then return answer end
  local limit = key.limits.rpm
  local rate = {
    limit,
    math.max(0, limit - window.total),
    freeInMs(window, limit, now),
    freeInMs(window, 1, now),
  }
  for _, number in ipairs(rate) do answer[#answer + 1] = exact(number) end
  saveWindow(window)
  return answer
end

local refusal = firstRefusal()
if refusal then
  local budget = key and key.limits.budgetMicro
  local answer = withRate({
    'refused', refusal, old, exact(org.funded), exact(org.spent), exact(org.held),
    budget and exact(budget) or '', budget and exact(key.spent) or '', budget and exact(key.held) or '',
  })
  saveHolds()
  return answer
end

local hold
local closed = guarded(function()
  hold = {
    requestId = requestId, state = 'provisional', writer = writerEpoch, keyId = keyId, revision = '-1',
    at = exact(now), forget = 0, total = micro, text = takingsText(take(key, micro)),
  }
end)
if closed then return closed end
beginProvisional(hold)
if window then count(window) end
local answer = withRate({ 'admitted', old, exact(now), hold.text })
saveHolds()
return answer
