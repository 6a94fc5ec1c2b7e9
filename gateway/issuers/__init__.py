"""Outside issuers: have their keys fetched by one worker for all, and bind their subjects to tenants."""
