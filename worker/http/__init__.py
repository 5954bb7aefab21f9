"""HTTP/1.1 as the worker speaks it: strict in what it sends, lenient in the answers that it reads."""
