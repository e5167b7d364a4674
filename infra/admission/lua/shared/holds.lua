-- Holds by request id. ACTS (verb → state → what happens) is made from the table that the reducer reads, so the rules of a
-- hold's life are written once.
--
-- Field of the hash `state`: h:<requestId> = state writer key revision at forget total takings, where takings are
-- "account period micro shares" one after the other, and each share is "lot pot micro"; shares is "-" for an account
-- without lots. `taken` has the provisional holds as "at writer requestId", in the order in which they were taken;
-- `tombstones` the dropped request ids, oldest first.
local holds, changedHolds = {}, {}

local function readHold(requestId, text)
  if not text then return false end
  local stands, writer, keyId, revision, at, forget, total, takings =
    string.match(text, '^(%S+) (%S+) (%S+) (%S+) (%S+) (%S+) (%S+) ?(.*)$')
  return {
    requestId = requestId, state = stands, writer = writer, keyId = keyId, revision = revision,
    at = at, forget = tonumber(forget), total = tonumber(total), text = takings,
  }
end

local function holdOf(requestId)
  local hold = holds[requestId]
  if hold == nil then
    hold = readHold(requestId, redis.call('HGET', state, 'h:' .. requestId))
    holds[requestId] = hold
  end
  return hold
end

local function stateOf(hold)
  return hold and hold.state or 'absent'
end

local function takingsOf(hold)
  local next = string.gmatch(hold.text, '%S+')
  local takings = {}
  for account in next do
    local taking = { account = account, period = next(), micro = tonumber(next()) }
    local shares = next()
    if shares ~= '-' then
      taking.lots = {}
      for at = 1, tonumber(shares) do
        taking.lots[at] = { lotId = next(), pot = next(), micro = tonumber(next()) }
      end
    end
    takings[#takings + 1] = taking
  end
  return takings
end

local function takingsText(takings)
  local words = {}
  local function say(word) words[#words + 1] = word end
  for _, taking in ipairs(takings) do
    say(taking.account)
    say(taking.period)
    say(exact(taking.micro))
    say(taking.lots and #taking.lots or '-')
    for _, share in ipairs(taking.lots or {}) do
      say(share.lotId)
      say(share.pot)
      say(exact(share.micro))
    end
  end
  return table.concat(words, ' ')
end

local function holdText(hold)
  return hold.state .. ' ' .. hold.writer .. ' ' .. hold.keyId .. ' ' .. hold.revision .. ' ' .. hold.at .. ' '
    .. exact(hold.forget) .. ' ' .. exact(hold.total) .. ' ' .. hold.text
end

-- Puts a hold in its place, or with false takes it away.
local function setHold(requestId, hold)
  holds[requestId] = hold
  changedHolds[requestId] = true
end

local function takenMember(hold)
  return hold.at .. ' ' .. hold.writer .. ' ' .. hold.requestId
end

local function beginProvisional(hold)
  begun[#begun + 1] = exact(org.next)
  begun[#begun + 1] = takenMember(hold)
  setTotal('next', org.next + 1)
  setHold(hold.requestId, hold)
end

-- A provisional hold goes on as something else.
local function endProvisional(hold)
  if hold.state == 'provisional' then ended[#ended + 1] = takenMember(hold) end
end

local function saveHolds()
  for requestId in pairs(changedHolds) do
    local hold = holds[requestId]
    if hold then
      write('h:' .. requestId, holdText(hold))
    else
      goneFields[#goneFields + 1] = 'h:' .. requestId
    end
  end
  save()
end
