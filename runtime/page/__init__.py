"""The page of a stream: its server, its pictures, and what the browser runs."""
