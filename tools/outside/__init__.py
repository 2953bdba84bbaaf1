"""Test suites of other projects, run against eccos in place of their fakes."""
