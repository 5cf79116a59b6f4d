//! SQL Server behind gatepost: the stories that are told of PostgreSQL, over TDS.

mod managed;
mod markers;
mod matrix;
mod stories;
