-- What all replicas of a pool hold now, for people who look from outside. Nothing is changed.
-- KEYS[1]: the key `<prefix>:meta`. ARGV[1]: a message with the schema, as JSON. Time is Redis' own.
local message = cjson.decode(ARGV[1])
local prefix = string.sub(KEYS[1], 1, -6)
local clock = redis.call('TIME')
local now = string.format('%.0f', clock[1] * 1000 + math.floor(clock[2] / 1000))
local replicas = redis.call('ZCOUNT', prefix .. ':replicas', now, '+inf')
local schema = redis.call('HGET', KEYS[1], 'schema')
if schema and schema ~= message.schema and replicas > 0 then
  return cjson.encode({error = 'schema', found = schema, replicas = replicas})
elseif not schema and redis.call('EXISTS', KEYS[1]) == 1 then
  return cjson.encode({error = 'foreign'})
end

-- slots of replicas whose lease ran out stand here until a living replica sends its next message
local in_flight, open, waiting = {}, {}, 0
if replicas > 0 then
  local totals = redis.call('HGETALL', prefix .. ':in_flight')
  for i = 1, #totals, 2 do in_flight[totals[i]] = tonumber(totals[i + 1]) end
  local health = redis.call('HGETALL', prefix .. ':health')
  for i = 1, #health, 2 do
    local state = cjson.decode(health[i + 1])
    if state.opened_until and tonumber(now) < state.opened_until then table.insert(open, health[i]) end
  end
  waiting = redis.call('HLEN', prefix .. ':waiting')
end
return cjson.encode({replicas = replicas, in_flight = in_flight, open = table.concat(open, '\n'), waiting = waiting})
