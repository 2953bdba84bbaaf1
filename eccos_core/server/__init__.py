"""`eccos serve`: the router behind the HTTP APIs that clients already speak."""
