//! Keys over HTTP: discovery, rotation, outages and storms.
