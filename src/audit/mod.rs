//! The audit journal: records, hash chain, verification, and the one writer thread.
