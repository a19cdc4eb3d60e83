"""For all tests: what they reach on this machine is reached without the proxy of a company's network."""

from stack.settings import exempt_loopback

exempt_loopback()
