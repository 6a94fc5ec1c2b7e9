-- Keys that read many models within ten minutes. A deployment reads its own few; somebody who copies reads all.
SELECT time_bucket(INTERVAL 10 MINUTE, time) AS since, key_id, tenant,
    count(DISTINCT model) AS models, count(*) AS reads, list(DISTINCT request.client) AS clients
FROM records
WHERE kind = 'decision' AND decision = 'allow' AND action = 'read' AND model IS NOT NULL
GROUP BY ALL
HAVING count(DISTINCT model) >= 10
ORDER BY models DESC;
