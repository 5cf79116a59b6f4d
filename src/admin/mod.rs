//! HTTP for operators: health and readiness.
