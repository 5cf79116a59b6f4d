//! Mistakes, with their carets.
