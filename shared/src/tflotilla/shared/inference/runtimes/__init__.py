"""One adapter per runtime, each with `runtime() -> Runtime`; `inference.runtime.ADAPTERS` lists them."""
