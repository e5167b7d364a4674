-- The figures that people read: the balance, and the budget of one of the organization's keys. An owner's epoch is empty for
-- whoever takes any owner's word.
--
-- keys: state free taken tombstones
-- args: keyId ownerEpoch
-- returns: figures old asOfMs funded spent held unspentLots position budget budgetSpent budgetHeld | fenced reason
-- uses: time owner books old
local fenced, position, text = open(ownerEpoch ~= '' and ownerEpoch or nil, 'position', 'k:' .. keyId)
if fenced then return fenced end
local now = nowMs()
local key = readKey(keyId, text)
local budget = key and key.limits.budgetMicro
return {
  'figures', meetsOld(now), exact(now), exact(org.funded), exact(org.spent), exact(org.held), exact(org.lots), position,
  budget and exact(budget) or '', budget and exact(key.spent) or '', budget and exact(key.held) or '',
}
