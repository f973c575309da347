"""serve shows: health, metrics and an API over HTTP, for the operator and the operator's tools. What changes needs a token."""
