-- The first use of each key from a network that it was not used from before, a day or more after its first use.
WITH uses AS (
    SELECT any_key AS key_id, tenant, network, min(time) AS since, count(*) AS requests
    FROM records WHERE kind = 'decision' AND any_key IS NOT NULL
    GROUP BY ALL
)
SELECT key_id, tenant, network, since, requests
FROM uses
QUALIFY since > min(since) OVER (PARTITION BY key_id) + INTERVAL 1 DAY
ORDER BY since;
