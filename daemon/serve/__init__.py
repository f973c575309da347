"""serve shows: health and metrics over HTTP, for the operator and the operator's tools. It changes nothing."""
