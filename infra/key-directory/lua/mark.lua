-- Says that every key of the shard is in it, under an owner. Written last when a shard is filled.
--
-- keys: shard
-- args: ownerEpoch
-- returns: marked | older
local present = redis.call('HGET', shard, 'epoch')
if present and tonumber(present) > tonumber(ownerEpoch) then return { 'older' } end
local server = string.match(redis.call('INFO', 'replication'), 'master_replid:(%x+)')
redis.call('HSET', shard, 'epoch', ownerEpoch, 'server', server)
return { 'marked' }
