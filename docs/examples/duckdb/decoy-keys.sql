-- Decoys that were used. Nobody was given one: whoever has it read what holds it, and found other keys there.
SELECT time, claimed_key_id AS key_id, request.client AS client, request.agent AS agent, id AS record
FROM records
WHERE kind = 'decision' AND reason = 'decoy-key'
ORDER BY time;
