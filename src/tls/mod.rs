//! TLS on both sides, the only place that knows rustls.
