//! Tables of mistakes.
