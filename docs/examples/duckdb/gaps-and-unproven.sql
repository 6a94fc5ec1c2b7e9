-- Where the log itself has less than everything: times in which nothing could be recorded, ends of chains that
-- are not proven, and numbers that are missing in a chain. (Missing numbers in an export that was filtered are
-- the filter's. `cachegate audit verify` is what proves a log.)
SELECT 'gap' AS what, chain, time, since || ' to ' || until AS where_, refused AS records, why
FROM records WHERE kind = 'gap'
UNION ALL
SELECT 'unproven', chain, time, 'from record ' || unproven_from, seq - unproven_from, state
FROM records WHERE kind = 'head' AND unproven_from IS NOT NULL
UNION ALL
SELECT 'missing', chain, max(time), 'records ' || min(seq) || ' to ' || max(seq),
    max(seq) - min(seq) + 1 - count(DISTINCT seq), NULL
FROM records GROUP BY chain HAVING count(DISTINCT seq) < max(seq) - min(seq) + 1
ORDER BY time;
