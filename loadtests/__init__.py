"""Load tests: Locust scenarios for any base URL, the bench beside its own floor, and chaos."""
