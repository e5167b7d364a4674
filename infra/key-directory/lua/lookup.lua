-- Finds a key by its token's hash. A shard that was not filled on this life of this server knows nothing of what is
-- missing in it: that key may be one that the server lost.
--
-- keys: shard
-- args: tokenHash
-- returns: known entry | unknown epoch | unfilled epoch
local entry = redis.call('HGET', shard, tokenHash)
if entry then return { 'known', entry } end
local mark = redis.call('HMGET', shard, 'epoch', 'server', 'filled')
local server = string.match(redis.call('INFO', 'replication'), 'master_replid:(%x+)')
local epoch = mark[1] or '0'
if mark[2] == server and mark[3] == 'yes' then return { 'unknown', epoch } end
return { 'unfilled', epoch }
