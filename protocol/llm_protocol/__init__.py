"""What is said: messages, requests, answers, events, failures and vendor dialects. No I/O, no Trio."""
