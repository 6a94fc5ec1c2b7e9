-- What was sent to each tenant by day, most first.
SELECT CAST(time AS DATE) AS day, tenant, sum(bytes) AS bytes, count(*) AS answers
FROM records
WHERE kind = 'outcome'
GROUP BY ALL
ORDER BY bytes DESC, day, tenant;
