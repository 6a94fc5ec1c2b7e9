-- Who asked for many names that it may not know of, within an hour: somebody guesses.
SELECT date_trunc('hour', time) AS hour, any_key AS key_id, tenant, request.client AS client,
    count(DISTINCT resource.requested) AS names, min(resource.requested) AS example
FROM records
WHERE kind = 'decision' AND decision = 'deny' AND resource.requested IS NOT NULL
GROUP BY ALL
HAVING count(DISTINCT resource.requested) >= 20
ORDER BY names DESC;
