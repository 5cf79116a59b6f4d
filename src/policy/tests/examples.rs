//! The published examples: they load, their cases hold, and the schema agrees with the reader.

use super::*;
