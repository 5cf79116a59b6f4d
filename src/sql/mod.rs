//! Reading SQL text as far as gatepost must: statement kinds, escapes, correlation comments.
