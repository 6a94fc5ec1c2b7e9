-- Keys that were used for at least a day from some networks, and then read much from another one.
-- Ask the key's owner; `cachegate audit key KEY` says what it took.
WITH reads AS (
    SELECT any_key AS key_id, tenant, network, time, model
    FROM records WHERE kind = 'decision' AND decision = 'allow' AND action IN ('read', 'infer')
),
known AS (SELECT key_id, min(time) AS first FROM reads GROUP BY key_id)
SELECT reads.key_id, any_value(tenant) AS tenant, network,
    min(time) AS since, count(*) AS reads, count(DISTINCT model) AS models
FROM reads JOIN known USING (key_id)
GROUP BY reads.key_id, network, known.first
HAVING min(time) > known.first + INTERVAL 1 DAY AND count(*) >= 20
ORDER BY reads DESC;
