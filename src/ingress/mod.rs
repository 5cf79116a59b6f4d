//! The doors: acceptor, data-path threads, connection limits, drain.
