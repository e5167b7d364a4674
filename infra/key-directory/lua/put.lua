-- Puts keys in their places: a token's hash, its entry, the next hash and so on. A revocation is kept: nothing that comes
-- later brings the key back.
--
-- keys: shard
-- args: entries
-- returns: put
local list = cjson.decode(entries)
for at = 1, #list, 2 do
  local present = redis.call('HGET', shard, list[at])
  if not (present and cjson.decode(present).revoked) then redis.call('HSET', shard, list[at], list[at + 1]) end
end
return { 'put' }
